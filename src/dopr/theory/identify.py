"""T3, identification: how many rollouts it takes to find the right one of M latent strategies. Proofs: docs/theory.md."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dopr.theory.divergence import Floats, capacity, checked, kl
from dopr.theory.first_signal import whole
from dopr.theory.travel import profile


def identification_information(strategies: ArrayLike, delta: ArrayLike) -> Floats:
    """Nats one must learn to name the right one of M equally likely strategies with error at most ``delta``.

    Fano's inequality in its sharp form, ``kl(1 - delta, 1/M)``; 0 where a guess is good enough.

    Args:
        strategies: M, at least 2.
        delta: Allowed error, in (0, 1).

    Raises:
        ValueError: Outside these ranges.
    """
    m = checked(strategies, "strategies M", low=2, high=np.inf, closed="low")
    delta = checked(delta, "delta", low=0, high=1)
    return np.where(1 - delta > 1 / m, kl(1 - delta, 1 / m), 0.0)


def identification_rollouts(
    strategies: ArrayLike, p_plus: ArrayLike, p_minus: ArrayLike, delta: ArrayLike = 0.05
) -> Floats:
    """T3: fewest rollouts, each of one freely chosen strategy, that name the right one with error at most ``delta``.

    The largest of three bounds: by information, ``kl(1 - delta, 1/M) / C`` with C the `capacity` of a rollout, which grows with ln M;
    by trials, ``(M (1 - delta) - 1) / |p_plus - p_minus|``; and by divergence, ``M kl(1/M, 1 - delta) / kl(p_minus, p_plus)``. The latter two
    grow with M, because one rollout tries one strategy.

    Args:
        strategies: M, at least 2; the right one is equally likely to be any.
        p_plus: Success probability of the right strategy, in [0, 1].
        p_minus: Success probability of every other, in [0, 1] and different.
        delta: Allowed error, in (0, 1).

    Returns:
        Rollouts, whole numbers as floats; 0 where a guess is good enough.

    Raises:
        ValueError: Outside these ranges.
    """
    plus, minus = np.asarray(p_plus, np.float64), np.asarray(p_minus, np.float64)
    nats = identification_information(strategies, delta)
    per_rollout = capacity(plus, minus)
    m, delta = np.asarray(strategies, np.float64), np.asarray(delta, np.float64)
    trials = (m * (1 - delta) - 1) / np.abs(plus - minus)
    away = kl(minus, plus)
    divergence = m * kl(1 / m, 1 - delta) / away  # 0 where a single rollout may settle it
    return np.where(nats > 0, whole(np.maximum(np.maximum(nats / per_rollout, trials), divergence)), 0.0)


def propensity_rollouts(
    propensities: ArrayLike, p_plus: float, p_minus: float, delta: float = 0.05, *, prior: ArrayLike | None = None
) -> float:
    """T3 as rollouts are really drawn: the base policy picks the strategy, z with propensity w_z.

    The smallest T with ``max prior + sum_z prior_z (1 - (1 - w_z |p_plus - p_minus|)^T) >= 1 - delta``: until the right strategy has
    been drawn and its outcome told it from a wrong one, nothing distinguishes the worlds.

    Args:
        propensities: Base probability of each strategy, shape (M,), M >= 2, in [0, 1], summing to at most 1.
        p_plus: Success probability of the right strategy, in [0, 1].
        p_minus: Success probability of every other, in [0, 1] and different.
        delta: Allowed error, in (0, 1).
        prior: Probability that each strategy is the right one, shape (M,); default equal.

    Returns:
        Rollouts, a whole number; infinite where too much of the prior lies on strategies that are never drawn.

    Raises:
        ValueError: Outside these ranges.
    """
    w, rho = profile(propensities, prior)
    if w.size < 2 or w.sum() > 1 + 1e-9:
        raise ValueError("propensities must be at least 2 probabilities that sum to at most 1.")
    checked([p_plus, p_minus], "a success probability", low=0, high=1, closed="both")
    checked(delta, "delta", low=0, high=1)
    gap = abs(p_plus - p_minus)
    if gap == 0:
        raise ValueError(f"p_plus and p_minus are both {p_plus:g}; rollouts would tell nothing of the strategy.")
    with np.errstate(divide="ignore"):
        decay = np.log1p(-w * gap)
    guess, wanted = float(rho.max()), 1 - delta

    def possible(rollouts: float) -> bool:
        told = np.where(w > 0, -np.expm1(rollouts * decay), 0.0) if rollouts else np.zeros_like(w)
        return guess + float(rho @ told) >= wanted * (1 - 1e-12)

    if possible(0):
        return 0.0
    few, many = 0.0, 1.0
    while not possible(many):
        few, many = many, 2 * many
        if many > 1e300:
            return float(np.inf)
    while many - few > 1 and many - few > 1e-15 * many:
        middle = np.floor((few + many) / 2)
        few, many = (few, middle) if possible(middle) else (middle, many)
    return float(many)
