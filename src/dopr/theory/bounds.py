"""All bounds that given numbers allow, side by side, and the one that binds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dopr.theory.coverage import coverage_all, coverage_instances
from dopr.theory.divergence import kl
from dopr.theory.elicit import elicitation_floor
from dopr.theory.first_signal import first_signal_groups, first_signal_rollouts, mixed_probability
from dopr.theory.identify import drawn_rollouts, trial_rollouts
from dopr.theory.travel import profile, profile_updates, travel_updates


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One necessary condition.

    Attributes:
        theorem: ``T1`` to ``T5``.
        name: What it is about, in two or three words.
        value: The least that suffices, in ``unit``.
        unit: groups, updates, rollouts or problems.
        rollouts: The rollouts this implies; ``None`` where it bounds something else (problems to collect, updates).
        sentence: What it means in practice.
        assumes: What has to hold.
    """

    theorem: str
    name: str
    value: float
    unit: str
    rollouts: float | None
    sentence: str
    assumes: str


@dataclass(frozen=True, kw_only=True)
class LowerBounds:
    """Every bound the numbers allow, T1 first.

    Attributes:
        bounds: The bounds.
        binding: The one that asks for the most rollouts, of those that bound rollouts.
    """

    bounds: tuple[Bound, ...]
    binding: Bound


def lower_bound(
    *,
    target: float,
    p0: float | None = None,
    group_size: int = 8,
    prompts: int = 1,
    kappa: float | None = None,
    strategies: float | None = None,
    p_plus: float = 1.0,
    p_minus: float = 0.0,
    frequencies: Sequence[float] | None = None,
    rates: Sequence[float] | None = None,
    delta: float = 0.05,
) -> LowerBounds:
    """What no training run can beat, from what is known.

    Args:
        target: Mean success to reach, in (p0, 1].
        p0: Mean success of the base policy, in (0, 1); default the mean of ``rates``.
        group_size: Rollouts per group G, at least 2.
        prompts: Groups per update, to say what updates of whole groups cost.
        kappa: Divergence E_x KL(new || old) per update in nats, for T2; ``None`` leaves T2 out.
        strategies: Latent strategies M per skill, for T3.
        p_plus: Success probability of the right strategy.
        p_minus: Success probability of a wrong one.
        frequencies: Share of each skill in the pool, for T4, and the weights of ``rates``.
        rates: Base success of each skill, for T5, and to sharpen T1 to T3; default: one skill at ``p0``, and no T5.
        delta: Allowed probability of failure, in (0, 1).

    Raises:
        ValueError: Numbers outside their range, or frequencies and rates of different length.
    """
    weights = None if frequencies is None else list(frequencies)
    if rates is not None and weights is not None and len(rates) != len(weights):
        raise ValueError(f"{len(weights)} frequencies for {len(rates)} rates; give one each per skill.")
    if p0 is None:
        if rates is None:
            raise ValueError("Give p0, the base policy's mean success, or the rates of its skills.")
        known, shares = profile(rates, weights)
        p0 = float(known @ shares)
    if not 0 < p0 < target <= 1:
        raise ValueError(f"p0 and target must satisfy 0 < p0 < target <= 1; got p0 {p0:g} and target {target:g}.")
    if rates is not None and not any(0 < rate < 1 for rate in rates):
        raise ValueError(
            "the rates are all 0 or 1: no group is ever mixed, so nothing is ever learned (T1). Give at least one between."
        )
    if prompts < 1:
        raise ValueError(f"prompts is {prompts}; an update needs at least 1 group.")
    found = [_signal(p0, rates, group_size, delta)]
    if kappa is not None:
        found.append(_travel(p0, target, kappa, group_size * prompts, rates, weights))
    needed = 1
    if rates is not None:
        floor = elicitation_floor(rates, target, weights=weights)
        needed = _fewest_skills(rates, target, weights)
    if strategies is not None:
        found.append(_identify(strategies, p_plus, p_minus, delta, [p0] if rates is None else rates, needed))
    if frequencies is not None:
        found.append(_cover(frequencies, delta))
    if rates is not None:
        found.append(
            Bound(
                theorem="T5", name="elicitation floor", value=floor.rollouts, unit="rollouts", rollouts=floor.rollouts,
                sentence=f"Without transfer between skills, {len(floor.skills)} of {len(rates)} skills must each show a first "
                f"success; at the base policy's rates that alone takes {floor.rollouts:,.0f} rollouts on average.",
                assumes="a skill rises only after a success of its own",
            )
        )  # fmt: skip
    return LowerBounds(bounds=tuple(found), binding=max(found, key=lambda b: b.rollouts or 0.0))


def _signal(p0: float, rates: Sequence[float] | None, group_size: int, delta: float) -> Bound:
    best = p0
    if rates is not None:
        known, _ = profile(rates)
        best = float(known[np.abs(known - 0.5).argmin()])
    groups = float(first_signal_groups(best, group_size, delta))
    whose = "a random prompt" if rates is None else "even the most informative prompt"
    return Bound(
        theorem="T1", name="first signal", value=groups, unit="groups",
        rollouts=float(first_signal_rollouts(best, delta)),
        sentence=f"A group of {group_size} on {whose} is mixed with probability {float(mixed_probability(best, group_size)):.2g}: "
        f"be ready to roll out {groups:,.0f} group{'s' * (groups != 1)} before anything can be learned.",
        assumes="only mixed groups give a gradient" + ("; prompts drawn at random, with replacement" if rates is None else ""),
    )  # fmt: skip


def _travel(
    p0: float, target: float, kappa: float, per_update: int, rates: Sequence[float] | None, weights: list[float] | None
) -> Bound:
    updates = float(travel_updates(p0, target, kappa))
    if rates is not None and target < 1:
        p, w = profile(rates, weights)
        if float(w @ p) < target:
            updates = max(updates, profile_updates(p, target, kappa, w))
    return Bound(
        theorem="T2", name="travel", value=updates, unit="updates", rollouts=None,
        sentence=f"At {kappa:g} nats per update no method reaches {target:g} in fewer than {updates:,.0f} updates, and in all the policy "
        f"must move {float(kl(target, p0)):.3g} nats. With {per_update} rollouts behind every update (whole groups, none made from replay "
        f"alone) that is {updates * per_update:,.0f} rollouts; groups stopped early and updates without rollouts take fewer.",
        assumes="every update keeps E_x KL(new || old) at or below that",
    )  # fmt: skip


def _fewest_skills(rates: Sequence[float], target: float, weights: list[float] | None) -> int:
    p, w = profile(rates, weights)
    gains = np.sort(w * (1 - p))[::-1].cumsum()
    return int(np.searchsorted(gains, target - float(w @ p) - 1e-12)) + 1


def _identify(
    strategies: float, p_plus: float, p_minus: float, delta: float, rates: Sequence[float], needed: int
) -> Bound:
    """The quicker of two ways: draws of the base policy, or trials of chosen strategies."""
    # Each of the needed skills takes a rollout of its own at least.
    chosen = max(float(trial_rollouts(strategies, p_plus, p_minus, delta)), float(needed))
    propensity = np.clip((profile(rates)[0] - p_minus) / (p_plus - p_minus), 0.0, 1.0)
    drawn = drawn_rollouts(propensity * abs(p_plus - p_minus), needed, delta)
    what = "the right strategy shows itself" if needed == 1 else f"{needed} skills show their right strategy"
    draws = f"no sooner than after {drawn:,.0f} rollouts" if np.isfinite(drawn) else "never"
    value = min(drawn, chosen)
    return Bound(
        theorem="T3", name="identification", value=value, unit="rollouts", rollouts=value,
        sentence=f"Drawn from the base policy, {what} with probability {1 - delta:g} {draws}; if rollouts could try a strategy "
        f"of choice among {strategies:,.0f} instead, after {chosen:,.0f}. The smaller number counts.",
        assumes="rollouts are all drawn, or all of chosen strategies; a skill rises only after it has shown its right one; "
        "skills tell nothing of each other",
    )  # fmt: skip


def _cover(frequencies: Sequence[float], delta: float) -> Bound:
    rarest = min(frequencies)
    one, every = float(coverage_instances(rarest, delta)), coverage_all(frequencies, delta)
    return Bound(
        theorem="T4", name="coverage", value=every, unit="problems", rollouts=None,
        sentence=f"Collect at least {every:,.0f} random problems to hold every skill with probability {1 - delta:g} "
        f"({one:,.0f} for the rarest alone). Choosing among them saves rollouts, not problems.",
        assumes="problems are drawn independently; a skill needs a problem of its own",
    )  # fmt: skip
