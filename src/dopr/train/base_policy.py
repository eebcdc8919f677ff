"""The policy as it was before training, for searches: what it would find may have become too rare to be found since."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer


class BasePolicy:
    """Puts the parameters from before training in place for a while.

    A copy of the trained parameters, of adapters alone where there are any, is kept in main memory. (Switching adapters off would not do:
    they may have been trained before.)

    Args:
        trainer: Before its first update, and before a checkpoint is loaded into its model.
        wanted: Whether anybody will ask for it; else no copy is made.

    Attributes:
        available: Whether it can be had; not where engines shard the parameters or serve them.
    """

    def __init__(self, trainer: DoPRTrainer, *, wanted: bool) -> None:
        self._trainer = trainer
        sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
        served = trainer.use_vllm or trainer.use_transformers_continuous_batching
        self.available = wanted and not served and not sharded
        self._kept: list[torch.Tensor] = []
        if self.available:
            self._kept = [p.detach().to("cpu", copy=True) for p in trainer.model.parameters() if p.requires_grad]

    @contextmanager
    def active(self) -> Iterator[None]:
        """The trainer's model answers as the base policy inside; its own parameters come back unchanged."""
        model: Any = self._trainer.accelerator.unwrap_model(self._trainer.model_wrapped)
        trained = [p for p in model.parameters() if p.requires_grad]
        now = [p.data for p in trained]
        for parameter, kept in zip(trained, self._kept, strict=True):
            parameter.data = kept.to(parameter.device)
        try:
            yield
        finally:
            for parameter, data in zip(trained, now, strict=True):
                parameter.data = data
