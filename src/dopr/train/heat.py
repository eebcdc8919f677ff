"""Rollouts at another temperature than the policy's own, for the selector's search (``dopr.selection.search``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from dopr.train.rows import Batch

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer


@contextmanager
def sampling_heat(trainer: DoPRTrainer, heat: float) -> Iterator[None]:
    """Generate at ``heat`` times the trainer's temperature; log-probabilities and the loss keep the trainer's own.

    TRL reads the temperature of a generation from its generation settings, or with vLLM from its client's.
    """
    usual = trainer.temperature

    def use(temperature: float) -> None:
        if trainer.use_vllm:
            trainer.vllm_generation.temperature = temperature
        else:
            trainer.generation_config.temperature = trainer.generation_kwargs["temperature"] = temperature

    if heat == 1:
        yield
        return
    use(usual * heat)
    try:
        yield
    finally:
        use(usual)


def search_rows(batch: Batch, successes: torch.Tensor, weight: float) -> Batch:
    """A batch of rollouts at another temperature: successes count like replayed ones, the others not at all.

    Args:
        batch: This process's rows.
        successes: Whether the verifier accepted each of them, shape (R,).
        weight: Advantage of a success.
    """
    advantages = weight * successes.to(batch["advantages"])
    corrected = {
        key: torch.ones_like(value) if key == "importance_sampling_ratio" else value for key, value in batch.items()
    }
    return {**corrected, "advantages": advantages}
