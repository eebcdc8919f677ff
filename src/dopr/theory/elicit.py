"""T5, elicitation floor: rollouts until enough skills have shown their first success. Proofs: docs/theory.md."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dopr.theory.divergence import Floats, checked
from dopr.theory.travel import profile

_NODES = 100_000  # of the exact search; beyond them its relaxation, a lower bound too, is returned


@dataclass(frozen=True, kw_only=True)
class Elicitation:
    """The cheapest way to the target if every skill needs a success of its own.

    Attributes:
        rollouts: Fewest expected rollouts; with ``delta``, the number that a run stays below with probability at most delta.
        skills: Positions of the skills to unlock in the cheapest set (of clusters their easiest skill), ascending.
        exact: Whether the set is proved cheapest; else ``rollouts`` is that of the fractional relaxation, below it.
    """

    rollouts: float
    skills: tuple[int, ...]
    exact: bool


def elicitation_floor(
    rates: ArrayLike,
    target: float,
    *,
    weights: ArrayLike | None = None,
    transferred: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    unlocked: ArrayLike = 1.0,
    delta: float | None = None,
) -> Elicitation:
    """T5: fewest rollouts to mean success ``target`` when a skill rises only after a success of its own.

    First successes are geometric waiting times, so a set U costs ``sum_U 1/p_s`` in expectation however adaptive the rule; the floor is the
    cheapest U whose unlocked and remaining success reach the target (a knapsack problem: easiest first need not be cheapest).

    Args:
        rates: Base success per skill, shape (K,), in [0, 1].
        target: Mean success to reach.
        weights: Share of each skill, shape (K,); default equal.
        transferred: Highest success each skill can have before its own first success, raised by learning on others, shape (K,);
            default its base rate (no transfer). It replaces the base rate in the waiting times and in what a locked skill adds.
        clusters: Label of each skill, K of them: skills with one label are all unlocked by the first success on any of them (full
            transfer within, none between). A cluster's waiting time is that of its easiest skill; default: each its own.
        unlocked: Success of an unlocked skill, one number or shape (K,).
        delta: If given, a floor for a single run instead of the expectation: no rule stays below it with
            probability above ``delta`` (Chernoff bound of the cheapest set).

    Raises:
        ValueError: Outside these ranges, a transferred rate below the base rate, or a target that not even all skills reach.
    """
    p, w = profile(rates, weights)
    if transferred is not None:
        raised = np.broadcast_to(checked(transferred, "a transferred rate", low=0, high=1, closed="both"), p.shape)
        if (raised < p).any():
            raise ValueError(
                "A transferred rate lies below the base rate; transfer can only be given credit for a rise."
            )
        p = raised
    checked(target, "target", low=0, high=1, closed="high")
    top = np.broadcast_to(checked(unlocked, "unlocked success", low=0, high=1, closed="both"), p.shape)
    gains = w * np.maximum(top - p, 0.0)
    reached = float(w @ p)
    easiest = np.arange(p.size)
    if clusters is not None:
        if len(clusters) != p.size:
            raise ValueError(f"{len(clusters)} clusters for {p.size} rates; give one label per skill.")
        members = [[i for i in range(p.size) if clusters[i] == label] for label in dict.fromkeys(clusters)]
        easiest = np.array([max(cluster, key=lambda i: p[i]) for cluster in members])
        gains, p = np.array([gains[cluster].sum() for cluster in members]), p[easiest]
    gains = gains * (p > 0)
    need = target - reached
    if need <= 0:
        return Elicitation(rollouts=0.0, skills=(), exact=True)
    if need > gains.sum() + 1e-12:
        raise ValueError(
            f"target {target:g} cannot be reached: with every skill of positive rate unlocked it is {reached + gains.sum():g}."
        )
    with np.errstate(divide="ignore"):
        waiting = 1 / p
    if delta is None:
        cost, skills, exact = _cheapest(gains, waiting, need)
        return Elicitation(rollouts=cost, skills=tuple(sorted(easiest[list(skills)].tolist())), exact=exact)
    checked(delta, "delta", low=0, high=1)
    _, least, exact_least = _cheapest(gains, np.ones_like(p), need)
    best, chosen, proved = float(len(least)), least, exact_least  # every first success needs a rollout
    for decay in np.geomspace(p[gains > 0].min() / 10, 30.0, 80):
        with np.errstate(divide="ignore", invalid="ignore"):
            price = decay + np.log1p((1 - p) * -np.expm1(-decay) / p)  # -ln E exp(-decay x waiting time)
        cost, skills, exact = _cheapest(gains, price, need)
        if (np.log(delta) + cost) / decay > best:
            best, chosen, proved = float((np.log(delta) + cost) / decay), skills, exact
    unlocked_skills = tuple(sorted(easiest[list(chosen)].tolist()))
    return Elicitation(rollouts=float(np.ceil(best * (1 - 1e-12))), skills=unlocked_skills, exact=proved)


def _cheapest(gains: Floats, costs: Floats, need: float) -> tuple[float, tuple[int, ...], bool]:
    """Cheapest set of items whose gains reach ``need``: branch and bound on the fractional relaxation."""
    useful = np.flatnonzero((gains > 0) & np.isfinite(costs))
    order = useful[np.argsort(costs[useful] / gains[useful], kind="stable")]
    g, c = gains[order].tolist(), costs[order].tolist()
    rest = np.concatenate([np.cumsum(gains[order][::-1])[::-1], [0.0]]).tolist()
    need -= 1e-12

    def relaxed(i: int, left: float) -> float:
        cost = 0.0
        while left > 0 and i < len(g):
            cost += c[i] * min(1.0, left / g[i])
            left -= g[i]
            i += 1
        return cost

    best, nodes = float("inf"), 0
    chosen: tuple[int, ...] = ()
    stack: list[tuple[int, float, float, tuple[int, ...]]] = [(0, need, 0.0, ())]
    while stack and nodes < _NODES:
        i, left, cost, taken = stack.pop()
        nodes += 1
        if left <= 0:
            if cost < best:
                best, chosen = cost, taken
            continue
        if rest[i] < left or cost + relaxed(i, left) >= best * (1 - 1e-12):
            continue
        j = i + 1
        while j < len(g) and g[j] == g[i] and c[j] == c[i]:
            j += 1  # leaving one item out, leave its equals out too
        stack.append((j, left, cost, taken))
        stack.append((i + 1, left - g[i], cost + c[i], (*taken, int(order[i]))))
    exact = not stack
    return (best if exact else relaxed(0, need)), tuple(sorted(chosen)), exact
