"""From scores to picks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats


def argmax(scores: Floats, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of the ``k`` highest scores, highest first; ties are broken at random, not by row order."""
    order = rng.permutation(len(scores))
    return order[np.argsort(-scores[order], kind="stable")[:k]]


def sample(scores: Floats, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``k`` distinct positions drawn in proportion to the scores (Gumbel top-k, Efraimidis & Spirakis 2006).

    Scores must be >= 0. When fewer than ``k`` are positive the rest is drawn uniformly.
    """
    gumbel = -np.log(-np.log(rng.uniform(np.finfo(float).tiny, 1.0, len(scores))))
    with np.errstate(divide="ignore"):
        # Far below any positive weight, yet ordered at random among themselves by the noise.
        weights = np.where(scores > 0, np.log(scores), -1e6)
    return np.argsort(-(weights + gumbel), kind="stable")[:k]
