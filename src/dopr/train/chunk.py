"""What one generation call returns, and the rollouts in it as plain token ids over all processes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dopr.train.advantages import group_totals
from dopr.train.rows import Batch, strip_padding

if TYPE_CHECKING:
    from dopr.train.trainer import DoPRTrainer


@dataclass
class Chunk:
    """Rollouts of one generation call: this process's rows, and which pick each row of all processes belongs to."""

    batch: Batch
    picks: torch.Tensor  # (world rows,)
    rewards: torch.Tensor  # (world rows, functions)
    answers: list[str]  # of all processes' rows
    lengths: list[int]  # tokens generated, the same way
    cut_off: float  # share of these rows that reached the length limit
    group_size: int  # TRL's advantages hold for groups of this many rows in a row
    search: bool  # without what had failed
    base: bool  # drawn by the policy as it was before training


@dataclass(frozen=True, slots=True)
class Rollout:
    """One scorable rollout.

    Attributes:
        pick: The number of its pick.
        reward: Its total reward.
        prompt: Token ids without padding.
        completion: The same.
        own: Whether the policy wrote all of it, and no tool or environment.
    """

    pick: int
    reward: float
    prompt: NDArray[np.int64]
    completion: NDArray[np.int64]
    own: bool


def totals_of(chunks: Sequence[Chunk], weights: torch.Tensor) -> list[float]:
    """Total reward of every rollout of all processes, chunk by chunk; NaN where nothing could score it."""
    rewards, picks = torch.cat([chunk.rewards for chunk in chunks]), torch.cat([chunk.picks for chunk in chunks])
    totals: list[float] = group_totals(rewards, picks.to(rewards.device), weights).tolist()
    return totals


def rollouts_of(trainer: DoPRTrainer, chunks: Sequence[Chunk], picks: Collection[int]) -> list[Rollout]:
    """The scorable rollouts of ``picks`` on all processes, in the same order on each."""
    world, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    mine: dict[int, Rollout] = {}
    totals = totals_of(chunks, trainer.reward_weights)
    rows = 0
    for chunk in chunks:
        share = len(chunk.picks) // world
        for i, pick in enumerate(chunk.picks.tolist()):
            if pick in picks and math.isfinite(totals[rows + i]) and i // share == rank:
                row = i - rank * share
                own = "tool_mask" not in chunk.batch or bool(
                    (chunk.batch["tool_mask"][row].bool() | ~chunk.batch["completion_mask"][row].bool()).all()
                )
                mine[rows + i] = Rollout(pick, totals[rows + i], *strip_padding(chunk.batch, row), own)
        rows += len(chunk.picks)
    return [rollout for _, rollout in sorted(trainer.gather_dict(mine).items())]
