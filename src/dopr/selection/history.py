"""What has been seen of each prompt, as flat arrays: 40 bytes per prompt, O(1) to update.

The same class serves three levels: one row per prompt, one row per cluster of prompts, one row for the whole pool.
Forgetting is lazy: a row's counts are discounted by the rounds since it was last seen when they are read, so no pass
over the pool is ever needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_FIELDS: dict[str, tuple[type[np.generic], float]] = {
    "visits": (np.int32, 0),  # groups observed
    "last_seen": (np.int32, -1),  # round of the last visit, -1 = never
    "successes": (np.float32, 0),  # sum of rewards scaled to [0, 1], discounted
    "failures": (np.float32, 0),  # sum of (1 - scaled reward), discounted
    "rate_mean": (np.float32, 0),  # exponentially weighted mean of the group success rate
    "rate_var": (np.float32, 0),  # exponentially weighted variance of the group success rate over visits
    "spread": (np.float32, 0),  # exponentially weighted within-group spread, in [0, 1]
    "entropy": (np.float32, np.nan),  # exponentially weighted mean token entropy in nats, NaN = never told
    "last_rate": (np.float32, np.nan),  # success rate of the last group, NaN = never
    "constant_run": (np.int32, 0),  # trailing visits whose rewards were all equal
}


@dataclass(frozen=True, slots=True)
class Group:
    """The scorable rewards of one group, reduced to what the estimators need.

    Attributes:
        n: Scorable rollouts.
        rate: Mean reward scaled to [0, 1] (the success rate for binary rewards).
        spread: Twice the population standard deviation of the scaled rewards, so 1 at a half-and-half group.
        mixed: Whether the rewards differ, that is, whether a group-relative advantage is non-zero.
        advantage: Mean size of the group-relative advantage, mean |r - mean| / std; 0 where all are equal. For
            binary rewards this is 2 sqrt(p (1 - p)).
        disagreement: Chance that two rollouts of the group gave different answers (of verdicts, where the answers
            are not known), in [0, 1].
    """

    n: int
    rate: float
    spread: float
    mixed: bool
    advantage: float = 0.0
    disagreement: float = 0.0


class RewardScale:
    """Maps rewards of any finite scale to [0, 1].

    Starts as the identity on [0, 1] and widens to the smallest and largest reward seen, so 0/1, -1/1 and continuous
    rewards need no setting.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = low, high

    def group(
        self, rewards: Sequence[float | None], answers: Sequence[str] | None = None, *, learn: bool = True
    ) -> Group | None:
        """Summary of one group; ``None`` and non-finite rewards are unscorable. ``None`` if nothing is scorable."""
        raw = np.array([r for r in rewards if r is not None and np.isfinite(r)], dtype=np.float64)
        if not raw.size:
            return None
        low, high = min(self.low, float(raw.min())), max(self.high, float(raw.max()))
        if learn:
            self.low, self.high = low, high
        # Halve before subtracting: rewards near the float limits must not overflow.
        scaled = (raw / 2 - low / 2) / (high / 2 - low / 2)
        mixed = bool((raw != raw[0]).any())  # equality, not a float standard deviation
        rate, std = float(scaled.mean()), float(scaled.std()) if mixed else 0.0
        return Group(
            n=len(raw),
            rate=rate,
            spread=min(1.0, 2 * std),
            mixed=mixed,
            # At most 1 in exact arithmetic; rewards that differ in their last bits alone may round past it.
            advantage=min(1.0, float(np.abs(scaled - rate).mean()) / std) if std > 0 else 0.0,
            disagreement=_disagreement(answers if answers is not None else raw.tolist()),
        )


def _disagreement(answers: Sequence[object]) -> float:
    """Unbiased Gini-Simpson index (Simpson 1949): the share of pairs of rollouts with different answers."""
    n = len(answers)
    return (n * n - sum(c * c for c in Counter(answers).values())) / (n * (n - 1)) if n > 1 else 0.0


class History:
    """Running statistics of ``size`` rows (prompts, clusters, or the pool).

    Args:
        size: Number of rows.
        forgetting: Discount of the success and failure counts per round since the row was last seen, in (0, 1].
        step: Weight of the newest group in the exponentially weighted averages, in (0, 1].
        per_prompt: Whether its rows are the prompts of the pool.
    """

    def __init__(self, size: int, *, forgetting: float, step: float, per_prompt: bool = False) -> None:
        self.size, self.forgetting, self.step, self.per_prompt = size, forgetting, step, per_prompt
        for name, (dtype, initial) in _FIELDS.items():
            setattr(self, name, np.full(size, initial, dtype=dtype))

    visits: NDArray[np.int32]
    last_seen: NDArray[np.int32]
    successes: NDArray[np.float32]
    failures: NDArray[np.float32]
    rate_mean: NDArray[np.float32]
    rate_var: NDArray[np.float32]
    spread: NDArray[np.float32]
    entropy: NDArray[np.float32]
    last_rate: NDArray[np.float32]
    constant_run: NDArray[np.int32]

    def observe(self, row: int, round_: int, group: Group) -> None:
        """Add one group, rolled out in round ``round_``, to ``row``."""
        keep = self.forgetting ** max(round_ - int(self.last_seen[row]), 0) if self.visits[row] else 0.0
        self.successes[row] = self.successes[row] * keep + group.n * group.rate
        self.failures[row] = self.failures[row] * keep + group.n * (1 - group.rate)
        # The first visit sets the averages; later ones move them by `step` (West 1979 for mean and variance).
        step = self.step if self.visits[row] else 1.0
        delta = group.rate - float(self.rate_mean[row])
        self.rate_mean[row] += step * delta
        self.rate_var[row] = (1 - step) * (self.rate_var[row] + step * delta * delta)
        self.spread[row] += step * (group.spread - self.spread[row])
        self.constant_run[row] = 0 if group.mixed else self.constant_run[row] + 1
        self.last_rate[row] = group.rate
        self.last_seen[row] = round_
        self.visits[row] += 1

    def observe_entropy(self, row: int, entropy: float) -> None:
        """Add the mean token entropy (nats) of the group last observed on ``row``."""
        old = self.entropy[row]
        self.entropy[row] = entropy if np.isnan(old) else old + self.step * (entropy - old)

    def forget(self, row: int) -> None:
        """Drop the success and failure counts of ``row``; visits and running averages stay."""
        self.successes[row] = self.failures[row] = 0

    def counts(self, rows: Rows, round_: int) -> tuple[Floats, Floats]:
        """Success and failure counts of ``rows``, forgotten down to ``round_``; two arrays of shape (len(rows),)."""
        age = np.maximum(round_ - self.last_seen[rows], 0)
        keep = np.where(self.visits[rows] > 0, np.power(self.forgetting, age, dtype=np.float64), 0.0)
        return np.asarray(self.successes[rows] * keep), np.asarray(self.failures[rows] * keep)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays, by field name."""
        return {name: getattr(self, name).copy() for name in _FIELDS}

    def load_state_dict(self, state: dict[str, NDArray[Any]], rows: Rows | None = None) -> None:
        """Restore arrays; ``rows`` says where each stored row goes now (-1 = the row is gone)."""
        for name in _FIELDS:
            stored, mine = np.asarray(state[name]), getattr(self, name)
            if rows is None:
                mine[:] = stored
            else:
                mine[rows[rows >= 0]] = stored[rows >= 0]


def nested_mean(levels: Sequence[tuple[History, Rows, float]], field: str, start: float) -> Floats:
    """A running statistic of some rows, each level's as the prior of the next, by visits.

    Args:
        levels: From the widest on: history, the rows in it, all of one length, and the weight of what the levels before say, in visits.
        field: Field of the histories, such as ``spread``.
        start: What the first level takes for its prior.
    """
    value = np.full(len(levels[0][1]), start)
    for history, rows, strength in levels:
        n = history.visits[rows].astype(np.float64)
        value = (strength * value + n * getattr(history, field)[rows]) / (strength + n)
    return value
