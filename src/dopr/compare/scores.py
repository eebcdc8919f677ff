"""Arithmetic across worlds: cost ratios, one score per arm and world, and what a gain is a share of. Intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dopr.metrics import Interval

_RESAMPLES = 2000
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
    worlds: Sequence[Sequence[Floats]], statistic: Callable[..., Floats], *, paired: bool = True
) -> Interval:
    """A statistic of mean scores over worlds, with an interval from resampling the seeds within each world.

    Args:
        worlds: Per world, the arms' scores, each of shape (seeds,).
        statistic: Given each arm's mean over worlds, one array of shape (resamples,) per arm.
        paired: Whether the arms of a world have the same seeds in the same order, which are then resampled together.
    """
    rng = np.random.default_rng(0)
    means: list[Floats] = [np.zeros(_RESAMPLES + 1) for _ in worlds[0]]  # the last entry is the estimate's
    for arms in worlds:
        shared = rng.integers(len(arms[0]), size=(_RESAMPLES, len(arms[0])))
        for total, values in zip(means, arms, strict=True):
            rows = shared if paired else rng.integers(len(values), size=(_RESAMPLES, len(values)))
            total += np.append(values[rows].mean(axis=1), values.mean()) / len(worlds)
    found = statistic(*means)
    low, high = np.nanquantile(found[:-1], [0.025, 0.975])
    return Interval(float(found[-1]), float(low), float(high))


def share_of_gain(without: Floats, partly: Floats, fully: Floats) -> Floats:
    """How much of what ``fully`` gains over ``without`` is gained by ``partly``; NaN where it gains nothing."""
    gain = fully - without
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gain > 0, (partly - without) / gain, np.nan)
