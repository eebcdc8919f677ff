"""T4, coverage: how many distinct problems until every skill is among them. Proofs: docs/theory.md."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dopr.theory.divergence import Floats, checked
from dopr.theory.first_signal import whole
from dopr.theory.travel import profile


def coverage_instances(frequency: ArrayLike, delta: ArrayLike = 0.05) -> Floats:
    """T4: fewest problems, drawn independently, that miss a skill with probability at most ``delta``.

    ``ceil(ln(delta) / ln(1 - f))``. For a pool, take its rarest skill.

    Args:
        frequency: Share f of problems of the skill, in (0, 1].
        delta: Allowed probability of missing it, in (0, 1).

    Returns:
        Problems, whole numbers as floats.

    Raises:
        ValueError: Outside these ranges.
    """
    f = checked(frequency, "a frequency", low=0, high=1, closed="high")
    delta = checked(delta, "delta", low=0, high=1)
    with np.errstate(divide="ignore"):
        return whole(np.log(delta) / np.log1p(-f))


def coverage_all(frequencies: ArrayLike, delta: float = 0.05) -> float:
    """T4 for all skills at once: fewest problems that can cover every one with probability 1 - ``delta``.

    Counts of independent draws are negatively associated, so the probability of covering all is at most
    ``prod_k (1 - (1 - f_k)^N)``; this is the smallest N at which that product allows it.

    Args:
        frequencies: Shares of the skills, shape (K,), in (0, 1], summing to at most 1.
        delta: Allowed probability of missing any, in (0, 1).

    Returns:
        Problems, a whole number.

    Raises:
        ValueError: Outside these ranges.
    """
    f, _ = profile(frequencies)
    checked(f, "a frequency", low=0, high=1, closed="high")
    checked(delta, "delta", low=0, high=1)
    if f.sum() > 1 + 1e-9:
        raise ValueError(f"frequencies sum to {f.sum():g}; they are shares of one pool.")
    with np.errstate(divide="ignore"):
        log_miss = np.log1p(-f)

    def covered(problems: float) -> float:
        return float(np.log1p(-np.exp(problems * log_miss)).sum())

    few, many = 0.0, 1.0
    while covered(many) < np.log1p(-delta) * (1 + 1e-12):
        few, many = many, 2 * many
    while many - few > 1 and many - few > 1e-15 * many:
        middle = np.floor((few + many) / 2)
        few, many = (middle, many) if covered(middle) < np.log1p(-delta) * (1 + 1e-12) else (few, middle)
    return float(many)


def coverage_of_pool(pool: int, holders: int, delta: float = 0.05) -> int:
    """T4 without replacement: fewest of ``pool`` problems, ``holders`` of which are of the skill, that miss it at most ``delta`` often.

    Raises:
        ValueError: No holders, more holders than problems, or delta outside (0, 1).
    """
    if not 1 <= holders <= pool:
        raise ValueError(f"holders must lie in [1, {pool}], the pool; got {holders}.")
    checked(delta, "delta", low=0, high=1)
    taken = np.arange(pool - holders, dtype=np.float64)
    log_miss = np.cumsum(np.log1p(-holders / (pool - taken)))  # after 1, 2, ... problems
    enough = np.flatnonzero(log_miss <= np.log(delta) * (1 - 1e-12))
    return int(enough[0]) + 1 if enough.size else pool - holders + 1
