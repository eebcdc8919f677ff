"""Arithmetic across worlds: cost ratios, one score per arm and world, and what a gain is a share of. Intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dopr.metrics import Interval, student

_RESAMPLES = 2000
_WIDEST = 1e6  # a share further away is as good as unbounded
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times more the reference spent than an arm to get to the same accuracy.

    Attributes:
        estimate: Median of the reference over the arm's median; 0 where most of the arm's seeds never got there.
        low: 2.5 % quantile of the bootstrap over seeds.
        high: 97.5 % quantile.
        at_least: Whether most of the reference's seeds did not get there, so that their budget stands in for their cost and
            the ratio is a lower bound.
    """

    estimate: float
    low: float
    high: float
    at_least: bool


def cost_ratio(reference: Sequence[float], arm: Sequence[float], *, budget: float) -> Ratio:
    """Ratio of median costs to a target.

    Args:
        reference: Spent by each of its seeds; infinity = not reached.
        arm: The same for the arm; the seeds need not be the same ones.
        budget: What the reference could spend at most, in place of an infinity.
    """
    rng = np.random.default_rng(0)
    theirs, mine = np.minimum(np.asarray(reference, np.float64), budget), np.asarray(arm, np.float64)

    def resampled(values: Floats) -> Floats:
        return np.asarray(np.median(values[rng.integers(len(values), size=(_RESAMPLES, len(values)))], axis=1))

    low, high = np.quantile(resampled(theirs) / resampled(mine), [0.025, 0.975])
    return Ratio(
        estimate=float(np.median(theirs) / np.median(mine)), low=float(low), high=float(high),
        at_least=not np.isfinite(np.median(np.asarray(reference, np.float64))),
    )  # fmt: skip


def scores(areas: Mapping[str, Sequence[float]], base: float) -> dict[str, Floats]:
    """Each seed's mean accuracy over a common budget, as a share of the way from the base policy to the best arm.

    Args:
        areas: Per arm, each seed's mean accuracy over the budget (``RunResult.mean_accuracy``).
        base: Accuracy before training.

    Returns:
        Per arm, shape (seeds,): the base policy would score 0, the best arm's mean is 1.

    Raises:
        ValueError: No arm is better than the base policy, so there is no way to measure along.
    """
    best = max(float(np.mean(values)) for values in areas.values())
    if best <= base:
        raise ValueError(f"The best arm's mean accuracy {best:.3f} does not exceed the base policy's {base:.3f}.")
    return {name: (np.asarray(values, np.float64) - base) / (best - base) for name, values in areas.items()}


def over_worlds(
    worlds: Sequence[Sequence[Floats]], weights: Sequence[float] = (1.0,), *, paired: bool = True
) -> Interval:
    """A weighted sum of the arms' mean scores over worlds, which count alike; seeds of different worlds have nothing in common.

    Args:
        worlds: Per world, the arms' scores, each of shape (seeds,).
        weights: One per arm: ``(1,)`` for a mean, ``(1, -1)`` for a difference.
        paired: Whether the arms of a world have the same seeds in the same order, so that what these share cancels.

    Returns:
        The 95 % interval is Student's t, its degrees of freedom by Welch and Satterthwaite: a bootstrap over five seeds is too narrow.

    Raises:
        ValueError: An arm with fewer than two seeds, which say nothing of how much they vary; paired arms with different numbers
            of them; scores that are not finite.
    """
    sample = [part for arms in worlds for part in _parts(arms, weights, paired)]
    estimate, spread, df = _combined(sample)
    width = student(0.975, df) * spread if spread else 0.0
    return Interval(estimate / len(worlds), (estimate - width) / len(worlds), (estimate + width) / len(worlds))


def share_of_gain(worlds: Sequence[tuple[Floats, Floats, Floats]]) -> Interval | None:
    """How much of what the third arm gains over the first is gained by the second, on the mean over worlds.

    Args:
        worlds: Per world, the scores of the three arms on the same seeds, each of shape (seeds,).

    Returns:
        The ratio of the mean gains with Fieller's 95 % interval (1954): the shares s for which the second arm's gain minus s
        times the third's is not told apart from 0. ``None`` where the third arm's gain is not: then the share may be anything.
    """
    gain = over_worlds(worlds, (-1.0, 0.0, 1.0))
    if gain.low <= 0:
        return None
    share = over_worlds(worlds, (-1.0, 1.0, 0.0)).estimate / gain.estimate

    def excluded(at: float) -> bool:
        left = over_worlds(worlds, (at - 1.0, 1.0, -at))
        return left.low > 0 or left.high < 0

    def end(step: float) -> float:
        inside, outside = share, share + step
        while not excluded(outside) and abs(outside) < _WIDEST:
            inside, outside = outside, outside + 2 * (outside - share)
        for _ in range(40):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if excluded(middle) else (middle, outside)
        return outside

    return Interval(share, end(-0.1), end(0.1))


def _parts(arms: Sequence[Floats], weights: Sequence[float], paired: bool) -> list[Floats]:
    """Independent samples whose means add up to the weighted sum of the arms' means."""
    if paired and len({len(values) for values in arms}) > 1:
        raise ValueError(f"Arms are paired by seed and have {', '.join(str(len(values)) for values in arms)} of them.")
    parts = [weight * np.asarray(values, np.float64) for weight, values in zip(weights, arms, strict=True)]
    return [np.sum(parts, axis=0)] if paired else parts


def _combined(samples: Sequence[Floats]) -> tuple[float, float, float]:
    """Sum of the samples' means, its standard error, and the degrees of freedom of that."""
    if any(len(values) < 2 for values in samples):
        raise ValueError("An interval over seeds needs two seeds of every arm.")
    if not all(np.isfinite(values).all() for values in samples):
        raise ValueError("A score is not finite.")
    variances = np.array([values.var(ddof=1) / len(values) for values in samples])
    freedom = np.array([len(values) - 1 for values in samples])
    total = float(variances.sum())
    df = total**2 / float((variances**2 / freedom).sum()) if total > 0 else float(freedom.sum())
    return float(sum(values.mean() for values in samples)), total**0.5, df
