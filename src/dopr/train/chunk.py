"""What one generation call returns, and the rollouts in it as plain token ids over all processes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dopr.train.advantages import total_reward
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
    """One scorable rollout: the number of its pick, its total reward, and its token ids without padding."""

    pick: int
    reward: float
    prompt: NDArray[np.int64]
    completion: NDArray[np.int64]


def rollouts_of(trainer: DoPRTrainer, chunks: Sequence[Chunk], picks: Collection[int]) -> list[Rollout]:
    """The scorable rollouts of ``picks`` on all processes, in the same order on each."""
    world, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    mine: dict[int, Rollout] = {}
    rows = 0
    for chunk in chunks:
        share = len(chunk.picks) // world
        totals = total_reward(chunk.rewards, trainer.reward_weights).tolist()
        for i, (pick, total) in enumerate(zip(chunk.picks.tolist(), totals, strict=True)):
            if pick in picks and math.isfinite(total) and i // share == rank:
                mine[rows + i] = Rollout(pick, total, *strip_padding(chunk.batch, i - rank * share))
        rows += len(chunk.picks)
    return [rollout for _, rollout in sorted(trainer.gather_dict(mine).items())]
