"""Pure pieces of an acquisition rule: arrays in, arrays out, all of shape (candidates,) unless said otherwise."""

from __future__ import annotations

import numpy as np

from dopr.selection.history import Floats


def mixed_probability(p: Floats, wrong_cap: int, right_cap: int, found: Floats | float = 0.0) -> Floats:
    """Chance that a group turns out mixed (rewards not all equal), for binary rewards.

    A plain group of G rollouts has ``wrong_cap = right_cap = G`` and gives 1 - p^G - (1-p)^G. With sequential rollouts
    a group goes on while all fail, up to ``wrong_cap`` rollouts, and while all succeed, up to ``right_cap``.

    Args:
        p: Success probabilities in [0, 1].
        wrong_cap: Rollouts after which an all-wrong group is given up.
        right_cap: Rollouts after which an all-right group is given up.
        found: Share of searches that end in a success, where a group goes on with one instead of being given up all wrong.
    """
    # At caps of 1 the two tails fill the whole probability and rounding may leave -1e-17.
    return np.maximum(0.0, 1.0 - (1.0 - p) ** wrong_cap * (1.0 - found) - p**right_cap)


def upper_confidence_bonus(visits: Floats, round_: int) -> Floats:
    """Count-based optimism sqrt(ln(1 + t) / (1 + n)): UCB1's width (Auer et al. 2002) with one pseudo-visit."""
    return np.sqrt(np.log1p(round_) / (1.0 + visits))


def visit_damping(visits: Floats, power: float) -> Floats:
    """Count-based exploration as a factor, (1 + n)^-power; 1 everywhere at power 0."""
    return (1.0 + visits) ** -power


def entropy_modulation(entropy: Floats, mean: float, power: float, clip: float = 4.0) -> Floats:
    """Factor (h / mean h)^power that shifts exploration to prompts whose rollouts are more uncertain than usual.

    Args:
        entropy: Mean token entropy per candidate, nats; NaN (never told) counts as average.
        mean: Running mean entropy over all rollouts, nats; not positive or NaN gives 1 everywhere.
        power: 0 switches the modulation off.
        clip: The ratio is kept in [1/clip, clip], so one odd reading cannot take over.
    """
    if power == 0 or not mean > 0:
        return np.ones_like(entropy)
    ratio = np.where(np.isnan(entropy), 1.0, entropy / mean)
    return np.clip(ratio, 1 / clip, clip) ** power
