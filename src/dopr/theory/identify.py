"""T3, identification: how many rollouts it takes to find the right one of M latent strategies. Proofs: docs/theory.md."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dopr.theory.divergence import Floats, capacity, checked, kl, told_apart
from dopr.theory.first_signal import whole
from dopr.theory.travel import profile

_STAGES = 400  # skills followed one by one; beyond them the easiest count as one rollout each


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
    checked(delta, "delta", low=0, high=1)
    gap = float(_gap(p_plus, p_minus))
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


def trial_rollouts(strategies: ArrayLike, p_plus: ArrayLike, p_minus: ArrayLike, delta: ArrayLike = 0.05) -> Floats:
    """T3 by choice: fewest rollouts, each of a freely chosen strategy, that show the right one with probability 1 - delta.

    ``ceil(M (1 - delta) / |p_plus - p_minus|)``: a rollout shows the right strategy where its outcome is not what a wrong one would
    have given, and after T of them that has happened with probability at most ``T |p_plus - p_minus| / M``. docs/theory.md.

    Args:
        strategies: M, at least 2; the right one is equally likely to be any.
        p_plus: Success probability of the right strategy, in [0, 1].
        p_minus: Success probability of every other, in [0, 1] and different.
        delta: Allowed probability of not being shown, in (0, 1).

    Returns:
        Rollouts, whole numbers as floats.

    Raises:
        ValueError: Outside these ranges.
    """
    m = checked(strategies, "strategies M", low=2, high=np.inf, closed="low")
    return whole(m * (1 - checked(delta, "delta", low=0, high=1)) / _gap(p_plus, p_minus))


def drawn_rollouts(hazards: ArrayLike, needed: int = 1, delta: float = 0.05) -> float:
    """T3 by draws: fewest rollouts of the policy in which ``needed`` skills can show themselves with probability 1 - delta.

    The quantile of the sum of independent geometric waiting times of the ``needed`` largest hazards. No rule, however adaptive,
    is quicker with larger probability (docs/theory.md), and the rule that takes these skills one after the other is as quick.
    Exact for up to 400 skills; of more, the easiest count as one rollout each, so the number stays a bound.

    Args:
        hazards: Probability that a rollout of the skill shows it, shape (K,), in [0, 1].
        needed: How many of the K skills, at least 1 and at most K.
        delta: Allowed probability of fewer, in (0, 1).

    Returns:
        Rollouts, a whole number; infinite where fewer than ``needed`` hazards are above 0.

    Raises:
        ValueError: Outside these ranges.
    """
    h, _ = profile(hazards)
    checked(delta, "delta", low=0, high=1)
    if not 1 <= needed <= h.size:
        raise ValueError(f"needed is {needed}; it must lie in [1, {h.size}], the number of skills.")
    h = np.sort(h)[::-1][:needed]
    if h[-1] == 0:
        return float(np.inf)
    at_once, h = max(0, needed - _STAGES), h[-_STAGES:]
    with np.errstate(divide="ignore"):
        stay = np.log1p(-h)
    if h.size == 1:
        return float(whole(np.log(delta) / stay[0]))
    # A chain with one state per skill still to come. Powers of its matrix hold sums of products of positive numbers, and the
    # diagonals are known: so every entry keeps its digits.
    powers = [np.diag(1 - h) + np.diag(h[:-1], 1)]
    allowed = delta * (1 + 1e-12)
    while powers[-1][0].sum() > allowed:
        square = powers[-1] @ powers[-1]
        np.fill_diagonal(square, np.exp(np.ldexp(1.0, len(powers)) * stay))
        powers.append(square)
    state, spent = np.eye(1, h.size)[0], 0.0
    for k in range(len(powers) - 1, -1, -1):
        if (later := state @ powers[k]).sum() > allowed:
            state, spent = later, spent + float(np.ldexp(1.0, k))
    return spent + 1 + at_once


def _gap(p_plus: ArrayLike, p_minus: ArrayLike) -> Floats:
    plus, minus = told_apart(p_plus, p_minus)
    return np.abs(plus - minus)
