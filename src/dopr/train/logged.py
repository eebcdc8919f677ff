"""What TRL logs, told of whole rounds and of the policy's own rollouts.

TRL logs rewards once per generation call, of which a sequential group takes several, and averages entropy and KL over all rows of
an update, also over replayed ones, whose KL term is 0 by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from dopr.train.advantages import total_reward
from dopr.train.chunk import Chunk

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer


def reward_marks(trainer: DoPRTrainer) -> dict[str, int]:
    """How many values each reward metric holds, before a round."""
    return {name: len(values) for name, values in trainer.logged.items() if name.startswith(("reward", "frac_reward"))}


def log_round(trainer: DoPRTrainer, chunks: Sequence[Chunk], outcomes: Sequence[str], marks: dict[str, int]) -> None:
    """Put one value of the whole round in the place of those that its generation calls have logged since ``marks``."""
    if len(chunks) == 1:
        return
    rewards = torch.cat([chunk.rewards for chunk in chunks])
    totals = total_reward(rewards, trainer.reward_weights)
    constant = sum(outcome in ("all_wrong", "all_right") for outcome in outcomes) / len(outcomes)
    values = {"reward": _mean(totals), "reward_std": _std(totals), "frac_reward_zero_std": constant}
    for i, name in enumerate(trainer.reward_func_names):
        values |= {f"rewards/{name}/mean": _mean(rewards[:, i]), f"rewards/{name}/std": _std(rewards[:, i])}
    for name, value in values.items():
        if name in trainer.logged:
            del trainer.logged[name][marks.get(name, 0) :]
            trainer.logged[name].append(value)


def log_advantages(trainer: DoPRTrainer, advantages: torch.Tensor) -> None:
    """The advantages that are learned from in the place of those of each generation call, for ``log_completions``."""
    logged = trainer._logs["advantages"]
    for _ in range(min(len(logged), len(advantages))):
        logged.pop()
    logged.extend(advantages.tolist())


def log_own_rows(trainer: DoPRTrainer, inputs: dict[str, Any]) -> None:
    """Entropy and KL (nats) of the micro-batch ``inputs`` over the rollouts of its round alone; nothing for replayed rows alone.

    The trainer has just logged both over all rows.
    """
    if trainer.captured_tokens is None or "dopr_group" not in inputs:
        return
    logps, entropies = trainer.captured_tokens
    replayed = inputs["dopr_group"] < 0
    (some,) = trainer.any_process(bool(replayed.any()))
    if not some:
        return
    mask = inputs["completion_mask"] * inputs.get("tool_mask", 1) * ~replayed[:, None]
    per_token = {"entropy": entropies}
    if trainer.beta != 0.0:
        apart = inputs["ref_per_token_logps"] - logps
        kl = torch.exp(apart) - apart - 1
        per_token["kl"] = kl * torch.exp(logps - inputs["old_per_token_logps"]) if _corrected(trainer, inputs) else kl
    for name, values in per_token.items():
        sums = torch.stack([(values * mask).sum(), mask.sum().to(values.dtype)])
        total, tokens = trainer.accelerator.reduce(sums, reduction="sum").tolist()
        trainer.logged[name].pop()
        if tokens:
            trainer.logged[name].append(total / tokens)


def _corrected(trainer: DoPRTrainer, inputs: dict[str, Any]) -> bool:
    return bool(trainer.args.use_bias_correction_kl) and "old_per_token_logps" in inputs


def _mean(values: torch.Tensor) -> float:
    return float(values.nanmean())


def _std(values: torch.Tensor) -> float:
    known = values[~torch.isnan(values)]
    return float(known.std()) if len(known) > 1 else float("nan")
