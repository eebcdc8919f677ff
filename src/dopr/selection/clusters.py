"""Clusters of prompts from any feature array: how evidence is shared between prompts that were never rolled out.

Features may be the policy's hidden state of each prompt, an embedding, or one-hot categories. Over-clustering is cheap
and under-clustering is not (docs/algorithm.md), so the default asks for more clusters than skills are expected.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError

_FIT_SAMPLE = 4096  # centroids need no more rows than this
_PROJECTED = 64  # dimensions kept by the random projection
_CHUNK = 8192  # rows assigned at a time, bounding memory


def default_clusters(pool: int) -> int:
    """Number of clusters for a pool of ``pool`` prompts: one per eight prompts, at most 64."""
    return max(1, min(64, pool // 8))


def cluster_features(features: NDArray[np.floating], k: int, seed: int) -> NDArray[np.int32]:
    """k-means labels of ``features``.

    Each column is standardised, wide arrays are projected to 64 random dimensions (Johnson-Lindenstrauss), then
    k-means++ seeding and Lloyd's iterations run on a sample.

    Args:
        features: Finite array of shape (N, D).
        k: Clusters wanted, 1 <= k; fewer come back when there are fewer distinct rows.
        seed: Seed of projection and seeding.

    Returns:
        Labels in [0, k), shape (N,).

    Raises:
        ConfigError: The array is not two-dimensional or not finite.
    """
    rng = np.random.default_rng([seed, 0xC1])
    x = _prepare(features, rng)
    sample = _sample(x, rng)
    centroids = _lloyd(sample, _plus_plus(sample, k, rng))
    return np.concatenate([_nearest(x[i : i + _CHUNK], centroids) for i in range(0, len(x), _CHUNK)]).astype(np.int32)


def principal_components(features: NDArray[np.floating], k: int, seed: int) -> NDArray[np.float32]:
    """The first ``k`` principal components of standardised ``features``, with mean squared length 1; shape (N, at most k).

    Raises:
        ConfigError: The array is not two-dimensional or not finite.
    """
    rng = np.random.default_rng([seed, 0xC2])
    x = _prepare(features, rng)
    sample = _sample(x, rng)
    _, axes = np.linalg.eigh(sample.T @ sample)  # the largest come last
    x = x @ axes[:, -k:]
    return (x / max(float(np.sqrt((x**2).sum(axis=1).mean())), 1e-6)).astype(np.float32)


def _prepare(features: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float32]:
    """Standardised columns, projected at random where there are many."""
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ConfigError(
            f"Features must be a finite array of shape (prompts, dimensions); got shape {features.shape}"
            f"{'' if features.ndim != 2 else ' holding NaN or infinity'}. Pass one finite vector per prompt."
        )
    x = np.asarray(features, dtype=np.float32)
    scale = x.std(axis=0)
    # A column whose spread is rounding error carries nothing; standardising would blow it up to full size.
    varies = scale > 1e-6 * max(float(np.abs(x).max(initial=0.0)), 1e-30)
    x = (x[:, varies] - x[:, varies].mean(axis=0)) / scale[varies]
    if x.shape[1] > _PROJECTED:
        x = x @ rng.standard_normal((x.shape[1], _PROJECTED)).astype(np.float32)
    return x.astype(np.float32)


def _sample(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return x if len(x) <= _FIT_SAMPLE else x[rng.choice(len(x), _FIT_SAMPLE, replace=False)]


def _plus_plus(x: NDArray[np.float32], k: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """k-means++ seeding (Arthur & Vassilvitskii 2007)."""
    centroids = [x[rng.integers(len(x))]]
    distance = np.full(len(x), np.inf)
    while len(centroids) < k:
        distance = np.minimum(distance, ((x - centroids[-1]) ** 2).sum(axis=1))
        total = distance.sum()
        if total <= 1e-9 * len(x):  # every row coincides with a centroid
            break
        centroids.append(x[rng.choice(len(x), p=distance / total)])
    return np.stack(centroids)


def _lloyd(x: NDArray[np.float32], centroids: NDArray[np.float32], iterations: int = 25) -> NDArray[np.float32]:
    for _ in range(iterations):
        labels = _nearest(x, centroids)
        moved = centroids.copy()
        for c in np.unique(labels):
            moved[c] = x[labels == c].mean(axis=0)
        if np.allclose(moved, centroids):
            break
        centroids = moved
    return centroids


def _nearest(x: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    # |x - c|^2 without the |x|^2 term, which does not change the nearest centroid.
    return np.argmin((centroids**2).sum(axis=1) - 2 * x @ centroids.T, axis=1)
