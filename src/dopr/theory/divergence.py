"""Binary divergence, its inverse and the capacity of a yes-or-no channel, accurate at the ends of the scale.

All in nats. Written without cancellation: ``kl(b + d, b) = b h(d/b) + (1 - b) h(-d/(1 - b))`` with
``h(t) = (1 + t) ln(1 + t) - t >= 0``, because the linear terms of the usual formula cancel exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_SERIES = 0.05  # below this h is summed as a series, above it the direct formula loses fewer than two digits
# h(t) = t^2 sum_k (-t)^k / ((k + 1)(k + 2))
_COEFFICIENTS = np.array([(-1.0) ** k / ((k + 1) * (k + 2)) for k in range(14)])


def checked(value: ArrayLike, name: str, *, low: float, high: float, closed: str = "") -> Floats:
    """``value`` as floats if all lie between ``low`` and ``high``; ends belong to it if ``closed`` names them.

    Args:
        value: Any shape.
        name: For the message.
        low: Lower end.
        high: Upper end.
        closed: ``low``, ``high`` or ``both`` where an end is allowed.

    Raises:
        ValueError: NaN or outside.
    """
    array = np.asarray(value, dtype=np.float64)
    above = array >= low if closed in ("low", "both") else array > low
    below = array <= high if closed in ("high", "both") else array < high
    if not (above & below).all():
        left, right = "[" if closed in ("low", "both") else "(", "]" if closed in ("high", "both") else ")"
        bad = array[~(above & below)].flat[0]
        raise ValueError(f"{name} must lie in {left}{low:g}, {high:g}{right}; got {bad:g}.")
    return array


def excess(t: ArrayLike) -> Floats:
    """``h(t) = (1 + t) ln(1 + t) - t`` for t >= -1, with relative accuracy near 0 too."""
    t = np.asarray(t, dtype=np.float64)
    small = np.abs(t) < _SERIES
    series = np.polynomial.polynomial.polyval(np.where(small, t, 0.0), _COEFFICIENTS) * t * t
    with np.errstate(divide="ignore", invalid="ignore"):
        direct = np.where(t <= -1.0, 1.0, (1.0 + t) * np.log1p(t) - t)
    return np.where(small, series, direct)


def kl(a: ArrayLike, b: ArrayLike) -> Floats:
    """Binary divergence ``a ln(a/b) + (1 - a) ln((1 - a)/(1 - b))`` in nats, element by element.

    Args:
        a: Probabilities in [0, 1].
        b: Probabilities in [0, 1]; where b is 0 or 1 and a differs the divergence is infinite.
    """
    a = checked(a, "a probability", low=0, high=1, closed="both")
    b = checked(b, "a probability", low=0, high=1, closed="both")
    return kl_step(b, a - b)


def kl_step(b: ArrayLike, d: ArrayLike) -> Floats:
    """``kl(b + d, b)``: give the step itself where it is smaller than the rounding of b."""
    b, d = np.broadcast_arrays(np.asarray(b, np.float64), np.asarray(d, np.float64))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = b * excess(np.maximum(d / b, -1.0)) + (1 - b) * excess(np.maximum(-d / (1 - b), -1.0))
    # At b = 0 or 1 nothing but b itself is at a finite distance.
    return np.where(d == 0, 0.0, np.where((b == 0) | (b == 1), np.inf, value))


def reachable_step(p: ArrayLike, kappa: ArrayLike) -> Floats:
    """Largest d with ``kl(p + d, p) <= kappa``, for p in (0, 1) and kappa > 0; at most 1 - p.

    Newton's method from the right: the divergence is convex in d, so it falls towards the root and never passes it.
    """
    p, kappa = np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(kappa, np.float64))
    room = 1.0 - p
    # h(t) >= t^2 / (2 + 2t/3) (Bernstein), h(-t) >= t^2/2, and kl >= 2 d^2 (Pinsker) each bound the root from above.
    start = np.minimum(
        kappa / 3 + np.sqrt(kappa * kappa / 9 + 2 * p * kappa), np.sqrt(np.minimum(2 * room, 0.5) * kappa)
    )
    d = np.minimum(start, room * (1 - 1e-15))
    for _ in range(60):
        slope = np.log1p(d / p) - np.log1p(-d / room)
        step = (kl_step(p, d) - kappa) / slope
        d = np.clip(d - step, 0.0, room * (1 - 1e-16))
        if np.all(np.abs(step) <= 1e-15 * d):
            break
    return np.where(kappa >= -np.log(p), room, d)


def reachable(p: ArrayLike, kappa: ArrayLike) -> Floats:
    """``U_kappa(p)``: the highest success one update of divergence ``kappa`` can reach from success ``p``.

    Args:
        p: Success rates in (0, 1).
        kappa: Divergence of the update in nats, above 0.

    Raises:
        ValueError: Outside these ranges.
    """
    p = checked(p, "p", low=0, high=1)
    kappa = checked(kappa, "kappa (nats per update)", low=0, high=np.inf)
    return p + reachable_step(p, kappa)


def entropy(p: ArrayLike) -> Floats:
    """Binary entropy in nats, 0 at 0 and 1."""
    p = checked(p, "p", low=0, high=1, closed="both")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, -p * np.log(p), 0.0) + np.where(p < 1, -(1 - p) * np.log1p(-p), 0.0)


def told_apart(p_plus: ArrayLike, p_minus: ArrayLike) -> tuple[Floats, Floats]:
    """Success probabilities of a right and of a wrong strategy, of one shape.

    Raises:
        ValueError: Outside [0, 1], or equal: then rollouts tell nothing.
    """
    plus = checked(p_plus, "p_plus", low=0, high=1, closed="both")
    minus = checked(p_minus, "p_minus", low=0, high=1, closed="both")
    plus, minus = np.broadcast_arrays(plus, minus)
    if (plus == minus).any():
        raise ValueError(
            f"p_plus and p_minus are both {plus[plus == minus].flat[0]:g}; rollouts would tell nothing of the strategy."
        )
    return plus, minus


def capacity(p_plus: ArrayLike, p_minus: ArrayLike) -> Floats:
    """Most nats one rollout can tell about whether its strategy is the right one.

    The capacity of the channel that succeeds with ``p_plus`` for one input and ``p_minus`` for the other. At its
    optimum the output rate y has the same divergence from both (Kuhn-Tucker), and that divergence is the capacity; y is found by
    bisection on its place between the two rates, which keeps the digits when these are close.

    Args:
        p_plus: Success probability of the right strategy, in [0, 1].
        p_minus: Success probability of a wrong one, in [0, 1] and different.

    Raises:
        ValueError: Outside, or equal: then rollouts tell nothing.
    """
    plus, minus = told_apart(p_plus, p_minus)
    gap = plus - minus
    low, high = np.zeros_like(gap), np.ones_like(gap)
    for _ in range(64):
        w = (low + high) / 2
        y = minus + w * gap
        nearer_minus = kl_step(y, -w * gap) < kl_step(y, (1 - w) * gap)
        low, high = np.where(nearer_minus, w, low), np.where(nearer_minus, high, w)
    w = (low + high) / 2
    y = minus + w * gap
    return w * kl_step(y, (1 - w) * gap) + (1 - w) * kl_step(y, -w * gap)
