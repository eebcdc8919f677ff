"""From scores to picks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats


def argmax(scores: Floats, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of the ``k`` highest scores, highest first; ties are broken at random, not by row order. O(n)."""
    if not k:
        return np.empty(0, np.int64)
    if k == 1:
        return rng.choice(np.flatnonzero(scores == scores.max()), 1, replace=False)
    # Everything above the k-th value is in; of those equal to it, random ones fill up.
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > threshold)
    ties = np.flatnonzero(scores == threshold)
    above = above[rng.permutation(len(above))]
    above = above[np.argsort(-scores[above], kind="stable")]
    return np.concatenate([above, rng.choice(ties, k - len(above), replace=False)])


def sample(scores: Floats, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``k`` distinct positions drawn in proportion to the scores (Gumbel top-k, Efraimidis & Spirakis 2006).

    Scores must be >= 0. When fewer than ``k`` are positive the rest is drawn uniformly.
    """
    gumbel = -np.log(-np.log(rng.uniform(np.finfo(float).tiny, 1.0, len(scores))))
    with np.errstate(divide="ignore"):
        # Far below any positive weight, yet ordered at random among themselves by the noise.
        weights = np.where(scores > 0, np.log(scores), -1e6)
    return argmax(weights + gumbel, k, rng)


def softmax(values: Floats, temperature: float) -> Floats:
    """Softmax of ``values / temperature``, shape kept."""
    weights = np.exp((values - values.max()) / temperature)
    return weights / weights.sum()
