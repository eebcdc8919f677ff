"""Knapsack RL: how many rollouts each prompt of a batch is worth."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError
from dopr.selection.controls import Uniform
from dopr.selection.history import Floats, Rows
from dopr.selection.posteriors import PosteriorSelector
from dopr.selection.settings import SelectorConfig


def rollout_value(p: Floats, n: Floats) -> Floats:
    """Value of ``n`` rollouts on a prompt of success rate ``p``: (1 - p^n - (1-p)^n) p (1-p)^2, arXiv 2509.25849."""
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2


def allocate_rollouts(p: Floats, budget: int, least: int) -> NDArray[np.int64]:
    """Rollouts per prompt that maximise the total ``rollout_value`` with ``budget`` in all, each at least ``least``.

    The value is concave in n (the gain of one more rollout, (p^n (1-p) + (1-p)^n p) p (1-p)^2, falls with n), so giving
    rollouts one by one to the largest gain is exact. O(budget log k).

    Args:
        p: Success rates in (0, 1), shape (k,).
        budget: Rollouts in all, at least ``k * least``.
        least: Fewest per prompt.
    """
    n = np.full(len(p), least, np.int64)

    def gain(i: int) -> float:
        return float((p[i] ** n[i] * (1 - p[i]) + (1 - p[i]) ** n[i] * p[i]) * p[i] * (1 - p[i]) ** 2)

    heap = [(-gain(i), i) for i in range(len(p))]
    heapq.heapify(heap)
    for _ in range(budget - int(n.sum())):
        i = heap[0][1]
        n[i] += 1
        heapq.heapreplace(heap, (-gain(i), i))
    return n


@dataclass(frozen=True, kw_only=True)
class KnapsackOptions:
    """Switches of Knapsack RL.

    Attributes:
        least: Fewest rollouts per prompt. Default 2, the authors'.
        keep: How much of earlier visits counts; 0 = the last group only, as the authors'.
    """

    least: int = 2
    keep: float = 0.0

    def __post_init__(self) -> None:
        if self.least < 2 or not 0 <= self.keep <= 1:
            raise ConfigError(
                f"least is {self.least}, keep {self.keep}; a group needs 2 rollouts, keep lies in [0, 1]."
            )


class Knapsack(PosteriorSelector, Uniform):
    """Knapsack RL (Li et al. 2025, arXiv 2509.25849): batch GRPO whose rollouts go where they are worth most.

    A round of k prompts still costs k G rollouts. Departs in shrinking the last success rate towards 1/2 (Beta(1, 1)),
    where the authors treat rates of exactly 0 and 1 apart; a prompt never seen counts as 1/2.
    """

    name = "knapsack"
    Options = KnapsackOptions
    options: KnapsackOptions

    def __init__(
        self, ids: Sequence[str] | range, config: SelectorConfig, options: KnapsackOptions | None = None
    ) -> None:
        super().__init__(ids, config, options)
        if self.options.least > config.group_size:
            raise ConfigError(
                f"least is {self.options.least} rollouts per prompt, the group size {config.group_size}: the budget of a "
                "round cannot cover that. Lower least or raise the group size."
            )

    def allocate(self, rows: Rows) -> NDArray[np.int64]:
        """The best split of the round's rollouts."""
        return allocate_rollouts(self.predict(rows), len(rows) * self.config.group_size, self.options.least)
