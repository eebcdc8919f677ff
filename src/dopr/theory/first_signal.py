"""T1, first signal: how many groups before anything can be learned at all; and what choosing prompts can add to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dopr.theory.divergence import Floats, checked

_ROUNDING = 1 - 1e-12  # a count that is whole up to rounding must not be rounded up past the truth


def whole(count: ArrayLike) -> Floats:
    """Smallest whole number of at least ``count``, forgiving rounding errors; at least 1."""
    return np.maximum(1.0, np.ceil(np.asarray(count, np.float64) * _ROUNDING))


def mixed_probability(p: ArrayLike, group_size: ArrayLike) -> Floats:
    """``1 - p^G - (1 - p)^G``: probability that a group of G rollouts holds both successes and failures.

    Args:
        p: Success rates in [0, 1], any shape; NaN stays NaN.
        group_size: Rollouts per group G, at least 1 (with 1 it is 0).
    """
    p, g = np.asarray(p, np.float64), np.asarray(group_size, np.float64)
    checked(p[~np.isnan(p)], "a success rate", low=0, high=1, closed="both")
    checked(g, "group_size (rollouts)", low=1, high=np.inf, closed="low")
    minority = np.minimum(p, 1 - p)
    return np.maximum(0.0, -np.expm1(g * np.log1p(-minority)) - minority**g)


def no_signal_log(p: ArrayLike, group_size: ArrayLike) -> Floats:
    """``ln(p^G + (1 - p)^G)``: log-probability that a group teaches nothing, for p in (0, 1)."""
    p = checked(p, "p", low=0, high=1)
    g = checked(group_size, "group_size (rollouts)", low=2, high=np.inf, closed="low")
    return np.logaddexp(g * np.log(p), g * np.log1p(-p))


def first_signal_groups(p: ArrayLike, group_size: ArrayLike, delta: ArrayLike = 0.05) -> Floats:
    """T1 in groups: fewest groups that contain a mixed one with probability at least 1 - delta.

    ``ceil(ln(delta) / ln(1 - q))``, q the mixed probability of the pool's most informative prompt; exact if all are like it.

    Args:
        p: Base success rate of the most informative prompt (the one nearest 1/2), in (0, 1).
        group_size: Rollouts per group G, at least 2.
        delta: Allowed probability of no signal, in (0, 1).

    Returns:
        Groups, whole numbers as floats.

    Raises:
        ValueError: Outside these ranges; at p = 0 or 1 no group is ever mixed.
    """
    delta = checked(delta, "delta", low=0, high=1)
    return whole(np.log(delta) / no_signal_log(p, group_size))


def first_signal_rollouts(p: ArrayLike, delta: ArrayLike = 0.05, *, replay: bool = False) -> Floats:
    """T1 in rollouts, however they are grouped, sequentially and adaptively too.

    A mixed group holds at least one of its prompt's rarer outcome, which each rollout of the base policy shows with
    probability at most m = max min(p, 1 - p): ``ceil(ln(delta) / ln(1 - m))``.

    Args:
        p: Base success rate of the prompt nearest 1/2, or with ``replay`` of the easiest prompt; in (0, 1).
        delta: Allowed probability of no signal, in (0, 1).
        replay: Verified successes are learned from even where the whole group succeeded; then an update needs one
            success, and m is p itself.

    Raises:
        ValueError: Outside these ranges.
    """
    p = checked(p, "p", low=0, high=1)
    delta = checked(delta, "delta", low=0, high=1)
    return whole(np.log(delta) / np.log1p(-(p if replay else np.minimum(p, 1 - p))))


@dataclass(frozen=True, kw_only=True)
class SelectionCeiling:
    """What choosing prompts can add to the share of informative groups.

    Attributes:
        random_share: Expected share of mixed groups for one prompt drawn at random.
        best_share: The same for a selector that knows every success rate and always takes the most informative prompt.
        gain: ``best_share / random_share``, at least 1; 1 where no prompt can be informative.
        times: Moments the shares are averaged over.
    """

    random_share: float
    best_share: float
    gain: float
    times: int


def selection_ceiling(rates: ArrayLike, group_size: int) -> SelectionCeiling:
    """The most that any selector could gain over one random prompt, in informative groups per group rolled out.

    At each moment a random prompt yields a mixed group with probability mean q(p_i, G), and no rule, however clever, with more
    than max q(p_i, G). That holds of the true rates of the whole pool. Of estimates it does not: those from few rollouts or few
    prompts can put the best share and the gain too low as well as too high.

    Args:
        rates: True success rates in [0, 1], shape (prompts,), or (times, prompts) as they change; NaN = not known.
        group_size: Rollouts per group G, at least 2.

    Raises:
        ValueError: Another shape, rates outside [0, 1], a group below 2, or no known rate at all.
    """
    table: NDArray[np.float64] = np.atleast_2d(np.asarray(rates, np.float64))
    if table.ndim != 2:
        raise ValueError(f"rates must have shape (prompts,) or (times, prompts); got {np.shape(rates)}.")
    if group_size < 2:
        raise ValueError(f"group_size is {group_size}; a group needs at least 2 rollouts to be mixed.")
    table = table[~np.isnan(table).all(axis=1)]
    if table.size == 0:
        raise ValueError("No success rate is known, so nothing can be said of selection.")
    q = mixed_probability(table, group_size)
    random_share = float(np.nanmean(q, axis=1).mean())
    best_share = float(np.nanmax(q, axis=1).mean())
    gain = best_share / random_share if random_share > 0 else 1.0
    return SelectionCeiling(random_share=random_share, best_share=best_share, gain=gain, times=len(table))
