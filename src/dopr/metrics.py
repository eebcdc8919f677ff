"""What an evaluation measures: pass@k, avg@n, maj@n, and intervals over problems. NumPy only.

A sample that could not be scored (reward None or not finite) counts as *not correct* in every metric here: a model must
not gain from completions that its verifier could not read. Count them beside the metrics (see :mod:`dopr.evaluate`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

SUCCESS_THRESHOLD = 1.0 - 1e-6
"""A reward of at least this much is a success; the slack forgives rounding, not partial credit."""

_BLOCK = 2_000_000  # resampled values held at once by the bootstrap (16 MB)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, in the unit of the estimated quantity.

    ``str`` gives ``0.412 [0.350, 0.471]``; a format specification applies to all three numbers (``f"{x:.1%}"``).
    """

    estimate: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        return f"{self.estimate:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)


def success_matrix(
    rewards: Sequence[Sequence[float | None]], threshold: float = SUCCESS_THRESHOLD
) -> NDArray[np.bool_]:
    """Which samples succeeded: rewards of P problems with n samples each -> bool (P, n). None and NaN are failures.

    Raises:
        ValueError: no problem, no sample, or problems with different numbers of samples.
    """
    widths = {len(row) for row in rewards}
    if len(widths) != 1 or widths == {0}:
        raise ValueError(
            f"rewards must be a non-empty (P, n) matrix; got {len(rewards)} rows of lengths {sorted(widths)}"
        )
    matrix = np.array([[np.nan if r is None else r for r in row] for row in rewards], dtype=np.float64)
    return matrix >= threshold  # a comparison with NaN is False


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> NDArray[np.float64]:
    """Unbiased probability that at least one of k samples is correct, from n samples of which c are.

    ``1 - C(n - c, k) / C(n, k)`` (Chen et al. 2021, arXiv 2107.03374, eq. 1), as a product of k factors in [0, 1]:
    no binomial is ever formed, so nothing overflows.

    Args:
        n: samples per problem, any shape broadcastable with ``c``.
        c: correct samples per problem, ``0 <= c <= n``.
        k: number of tries, ``1 <= k <= min(n)``.

    Returns:
        Array of the broadcast shape (0-dimensional for two scalars).
    """
    total, correct = np.broadcast_arrays(np.asarray(n), np.asarray(c))
    if total.size == 0:
        raise ValueError("pass@k of no problems is not defined.")
    if np.any(correct < 0) or np.any(correct > total):
        raise ValueError("pass@k needs 0 <= c <= n for every problem.")
    if k < 1 or k > total.min():
        raise ValueError(f"pass@{k} needs 1 <= k <= n, but the fewest samples of a problem are n = {total.min()}.")
    draws = np.arange(k)
    wrong_left = np.clip((total - correct)[..., None] - draws, 0, None)
    return np.asarray(1.0 - np.prod(wrong_left / (total[..., None] - draws), axis=-1), dtype=np.float64)


def avg_at_n(correct: ArrayLike) -> NDArray[np.float64]:
    """Mean success of each problem: bool (P, n) -> (P,). Equals pass@1."""
    matrix = np.asarray(correct, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"avg@n needs a non-empty (P, n) matrix; got shape {matrix.shape}.")
    return np.asarray(matrix.mean(axis=1))


def maj_at_n(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Chance that a majority vote over one problem's n samples is right.

    The most frequent extracted answer wins; a tie is broken at random, so the result is the mean correctness of the
    tied answers, in [0, 1]. None (no answer found) never wins; if all are None the vote is wrong.

    Args:
        answers: canonical extracted answers, length n.
        correct: the verifier's verdict on each sample, length n. Where samples with the same answer were judged
            differently, the answer's correctness is their mean.
    """
    if len(answers) != len(correct) or not answers:
        raise ValueError(f"maj@n needs n >= 1 answers with a verdict each; got {len(answers)} and {len(correct)}.")
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    top = max(votes.values())
    right = Counter(answer for answer, ok in zip(answers, correct, strict=True) if ok)
    return float(np.mean([right[answer] / top for answer, count in votes.items() if count == top]))


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., ArrayLike] = np.mean,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Percentile bootstrap interval of a statistic over problems (Efron 1979).

    Problems are resampled, not samples: the interval says how the number would move on other problems of this kind.
    With one problem, or equal values everywhere, the interval has width zero: it cannot know more. For values that
    are all 0 or 1 prefer :func:`proportion_interval`, which stays honest there.

    Args:
        values: one finite number per problem, shape (P,), P >= 1.
        statistic: called with ``axis=-1`` on blocks of shape (block, P) and on (P,).
        rng: source of the resampling.
        level: coverage, in (0, 1).
        resamples: number of bootstrap samples.
    """
    data = _finite_vector(values)
    _check_level(level)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}.")
    draws: list[NDArray[np.float64]] = []
    block = max(1, _BLOCK // len(data))
    for start in range(0, resamples, block):
        picks = rng.integers(len(data), size=(min(block, resamples - start), len(data)))
        draws.append(np.asarray(statistic(data[picks], axis=-1), dtype=np.float64))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.concatenate(draws), [tail, 1.0 - tail])
    return Interval(float(np.asarray(statistic(data, axis=-1))), float(low), float(high))


def paired_difference(before: ArrayLike, after: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's t interval of ``mean(after - before)`` over the same P problems in the same order, each (P,).

    Of fewer than thirty problems a bootstrap would be too narrow.
    """
    first, second = _finite_vector(before), _finite_vector(after)
    if first.shape != second.shape:
        raise ValueError(f"A paired difference needs the same problems twice; got {len(first)} and {len(second)}.")
    return over_seeds(second - first, level=level)


def over_seeds(values: ArrayLike, *, level: float = 0.95, least: float = -1.0, most: float = 1.0) -> Interval:
    """Student's t interval of a mean over seeds, which are few: a bootstrap over three of them covers less than 80 %.

    Args:
        values: one finite number per seed, shape (S,), S >= 1. With one the interval is all of [least, most].
        level: coverage, in (0, 1).
        least: lowest value that the mean can have; the interval is cut there.
        most: highest value.
    """
    data = _finite_vector(values)
    _check_level(level)
    if len(data) == 1:
        return Interval(float(data[0]), least, most)
    mean, width = (
        float(data.mean()),
        student(0.5 + level / 2, len(data) - 1) * float(data.std(ddof=1)) / len(data) ** 0.5,
    )
    return Interval(mean, max(mean - width, least), min(mean + width, most))


def student(p: float, df: float) -> float:
    """The quantile p >= 1/2 of Student's t: with t = sqrt(df) tan(a) the angle a has a density in proportion to cos(a)^(df - 1)."""
    angles = np.linspace(0.0, np.pi / 2, 20_001)
    density = np.cos(angles) ** (df - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(df**0.5 * np.tan(np.interp((2 * p - 1) * area[-1], area, angles)))


def proportion_interval(successes: int, total: int, *, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927): sensible at 0, at 1 and for small ``total`` too."""
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"A proportion needs 0 <= successes <= total and total >= 1; got {successes} of {total}.")
    _check_level(level)
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    p = successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * float(np.sqrt(p * (1 - p) / total + z * z / (4 * total * total)))
    # At the two ends the bound is exactly 0 or 1; min and max undo the rounding error there.
    return Interval(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def mean_interval(values: ArrayLike, *, rng: np.random.Generator, level: float = 0.95) -> Interval:
    """Interval of the mean over problems: Wilson where every value is 0 or 1, else the bootstrap."""
    data = _finite_vector(values)
    if np.isin(data, (0.0, 1.0)).all():
        return proportion_interval(int(data.sum()), len(data), level=level)
    return bootstrap(data, rng=rng, level=level)


def _finite_vector(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"An interval needs one value per problem, shape (P,) with P >= 1; got shape {data.shape}.")
    if not np.isfinite(data).all():
        raise ValueError("An interval needs finite values; count an unscorable sample as not correct first.")
    return data


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is a coverage in (0, 1), such as 0.95; got {level}.")
