"""T2, travel: how many updates of bounded divergence it takes to raise success. Proofs: docs/theory.md."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dopr.theory.divergence import Floats, checked, kl, reachable_step

_SMOOTH = 1e-3  # a step this small against the distance to 0 and 1 follows the asymptotic count to 1e-3 of a step
_CLIPS = (0.0, 0.01, 0.03, 0.1, 0.2)  # angles below success 1 that the profile bound may give away
_DISTINCT = 64  # rates that the profile bound tells apart
_GRID = 1500  # angles per prompt at which the profile bound looks for the best end point


def travel_updates(p0: ArrayLike, target: ArrayLike, kappa: ArrayLike) -> Floats:
    """T2: fewest updates from mean success ``p0`` to ``target``, each with E_x KL(new || old) <= ``kappa``.

    Applies `reachable` again and again, exactly; where steps are tiny a stretch of them is counted at once by
    ``(phi* - phi_0) sqrt(2 / kappa) + ln(sin 2 phi* / sin 2 phi_0) / 6`` with phi = arcsin sqrt(p), rounded in favour of
    fewer updates.

    Args:
        p0: Mean success before, in (0, 1).
        target: Mean success to reach, in (p0, 1].
        kappa: Divergence per update in nats, above 0.

    Returns:
        Updates, whole numbers as floats.

    Raises:
        ValueError: Outside these ranges, or steps lost in the rounding of success (kappa below about 1e-30). From success 0 no
            update of finite divergence gets anywhere.
    """
    p0, target, kappa = _travel_arguments(p0, target, kappa)
    shape = np.broadcast_shapes(p0.shape, target.shape, kappa.shape)
    p, goal, k = (np.broadcast_to(a, shape).ravel().copy() for a in (p0, target, kappa))
    count = np.ones(p.shape)
    jumped = np.zeros(p.shape, bool)
    while (open_ := (p < goal) & (kl(goal, p) > k * (1 + 1e-9))).any():  # elsewhere one more update reaches the goal
        step = reachable_step(p[open_], k[open_])
        before = p.copy()
        p[open_] = np.minimum(p[open_] + step, 1.0)
        count[open_] += 1
        for i in np.flatnonzero(open_ & ~jumped):
            p[i], extra = _jump(float(p[i]), float(goal[i]), float(np.sqrt(k[i] / 2)))
            jumped[i] = extra > 0
            count[i] += extra
        if (stuck := open_ & (p == before)).any():
            raise ValueError(
                f"kappa (nats per update) is {k[stuck][0]:g}; steps that small are lost in rounding at success "
                f"{p[stuck][0]:g}. Give a larger one."
            )
    return count.reshape(shape)


def _travel_arguments(p0: ArrayLike, target: ArrayLike, kappa: ArrayLike) -> tuple[Floats, Floats, Floats]:
    p0 = checked(p0, "p0", low=0, high=1)
    target = checked(target, "target", low=0, high=1, closed="high")
    kappa = checked(kappa, "kappa (nats per update)", low=0, high=np.inf)
    if (target <= p0).any():
        raise ValueError("target must lie above p0: there is nothing to travel.")
    return p0, target, kappa


def _jump(p: float, goal: float, h: float) -> tuple[float, float]:
    """Where many tiny steps of angle about ``h`` lead from ``p``, and how many they are; (p, 0) if it is not smooth there."""
    start, end = np.arcsin(np.sqrt([p, goal]))
    margin = h / _SMOOTH
    end = min(end, (np.pi - np.arcsin(min(1.0, margin))) / 2)
    if np.sin(2 * start) < margin or end <= start:
        return p, 0.0

    def count(angle: float) -> float:
        return float((angle - start) / h + np.log(np.sin(2 * angle) / np.sin(2 * start)) / 6)

    steps = np.floor(count(end) - 2)
    if steps < 10:
        return p, 0.0
    angle = end
    for _ in range(20):  # Newton on a nearly linear function
        angle -= (count(angle) - steps) * h
    return float(np.sin(angle + 1e-3 * h) ** 2), float(steps)


def total_divergence(rates: ArrayLike, target: float, weights: ArrayLike | None = None) -> float:
    """Least E_x KL(final || base) in nats with which mean success can be ``target``.

    The cheapest way is one tilt: every prompt's log-odds rise by the same amount. For a single rate it is ``kl(target, rate)``;
    for several it is at least that of their mean (convexity).

    Args:
        rates: Base success per prompt or skill, shape (n,), in [0, 1].
        target: Mean success to reach, above the mean of the rates and below what all but the rates at 0 allow.
        weights: Share of each, shape (n,); default equal.

    Raises:
        ValueError: Outside these ranges.
    """
    p, w = profile(rates, weights)
    odds = np.full(p.shape, -np.inf)
    odds[p > 0] = np.log(p[p > 0])
    ceiling = float(w @ (p > 0))
    if not float(w @ p) < target < ceiling or target >= 1:
        raise ValueError(
            f"target must lie above the mean success {float(w @ p):g} and below {min(1.0, ceiling):g}; got {target:g}."
        )
    with np.errstate(divide="ignore"):
        odds -= np.log1p(-p)

    def tilted(rise: float) -> Floats:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-(odds + rise)))

    low, high = 0.0, 1.0
    while w @ tilted(high) < target and high < 1e4:
        high *= 2
    for _ in range(200):
        low, high = (mid, high) if w @ tilted(mid := (low + high) / 2) < target else (low, mid)
    return float(w @ kl(np.clip(tilted(high), p, 1.0), p))


def profile(rates: ArrayLike, weights: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Rates of shape (n,) in [0, 1] and their shares, which sum to 1.

    Raises:
        ValueError: Other shapes or ranges.
    """
    p = checked(np.atleast_1d(np.asarray(rates, np.float64)), "a success rate", low=0, high=1, closed="both")
    w = np.ones(p.shape) if weights is None else np.asarray(weights, np.float64)
    if p.ndim != 1 or w.shape != p.shape or not p.size:
        raise ValueError(f"rates and weights must be vectors of one length; got shapes {p.shape} and {w.shape}.")
    if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise ValueError("weights must be finite, at least 0, and not all 0.")
    return p, w / w.sum()


def profile_updates(rates: ArrayLike, target: float, kappa: float, weights: ArrayLike | None = None) -> float:
    """T2 with the success of every prompt instead of their mean: fewest updates to mean success ``target``.

    Uneven success needs more travel than its mean shows: what is mastered cannot rise, and the rest has to go farther. With
    phi = arcsin sqrt(p), an update that ends at least the angle c below success 1 and raises a prompt by the angle D costs at least
    m_c(D) = kl(cos^2 c, cos^2(c + D)), which is convex in D; so S updates that raise prompt x by D_x in all need E_x m_c(D_x / S) <= kappa.
    Whoever comes within c of success 1 is counted as there, for several c. The best D is bounded from above by Lagrange duality.

    Args:
        rates: Base success per prompt or skill, shape (n,), in [0, 1].
        target: Mean success to reach, above their mean and below 1.
        kappa: Divergence per update in nats, above 0.
        weights: Share of each, shape (n,); default equal.

    Returns:
        Updates, a whole number; never more than needed, and for equal rates a little below `travel_updates`.

    Raises:
        ValueError: Outside these ranges.
    """
    p, w = profile(rates, weights)
    checked(target, "target", low=float(w @ p), high=1)
    checked(kappa, "kappa (nats per update)", low=0, high=np.inf)
    if np.unique(p).size > _DISTINCT:  # rounding rates up needs no more travel, so the bound stays one
        angles = np.arcsin(np.sqrt(p))
        grid = np.linspace(angles.min(), angles.max(), _DISTINCT)
        p = np.maximum(p, np.sin(grid[np.searchsorted(grid, angles - 1e-15).clip(max=_DISTINCT - 1)]) ** 2)
    distinct, which = np.unique(p, return_inverse=True)
    shares = np.bincount(which, weights=w).astype(np.float64)
    return max(_profile_updates(distinct, shares, float(target), float(kappa), clip) for clip in _CLIPS)


def _profile_updates(p: Floats, w: Floats, target: float, kappa: float, clip: float) -> float:
    top = np.pi / 2 - clip
    start = np.minimum(np.arcsin(np.sqrt(p)), top)[:, None]
    rise = (top - start) * np.linspace(0, 1, _GRID)  # (prompts, grid)
    value = np.sin(start + rise) ** 2
    value[:, -1] = 1.0

    def reached(updates: float) -> float:
        """Upper bound on the mean success after so many updates."""
        step = rise / updates
        base = np.cos(clip) ** 2
        cost = kl(base, np.minimum(np.cos(clip + step) ** 2, base))
        cost = np.minimum(cost, 1e9)  # a step over the whole range costs infinitely much; 0 * inf must not arise
        low, high = np.log(1e-9 / kappa), np.log(1e3 / kappa)
        best = np.inf
        for _ in range(40):  # the dual is convex in its price; golden section on the price's logarithm
            a, b = low + 0.382 * (high - low), low + 0.618 * (high - low)
            # The best within a cell of the grid has at most its right end's success and at least its left end's cost.
            va, vb = (
                float(w @ (value[:, 1:] - np.exp(x) * cost[:, :-1]).max(axis=1) + np.exp(x) * kappa) for x in (a, b)
            )
            best = min(best, va, vb)
            low, high = (low, b) if va < vb else (a, high)
        return best

    few, many = 0.5, 1.0
    while reached(many) < target:
        few, many = many, 2 * many
        if many > 1e15:
            break
    if few < 1:
        return 1.0
    while many - few > max(0.5, 1e-6 * few):
        middle = (few + many) / 2
        few, many = (middle, many) if reached(middle) < target else (few, middle)
    return float(np.ceil(few))
