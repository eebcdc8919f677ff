"""The lower bounds of `dopr.theory` beside what a run used, from the files of its directory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dopr.errors import RunError
from dopr.report_facts import base_rates, group_size, rollouts_per_update, setting, updates_cost_groups, world_of
from dopr.report_html import number
from dopr.report_run import RunRecord, read_run
from dopr.theory import (
    SelectionCeiling,
    elicitation_floor,
    lower_bound,
    mixed_probability,
    profile_updates,
    selection_ceiling,
    travel_updates,
)

_LUCK = 0.01  # a single run may be lucky; it beats a bound on waiting times only if that was less likely than this


@dataclass(frozen=True, kw_only=True)
class UsedBound:
    """One theorem's least beside what the run used.

    Attributes:
        theorem: ``T1`` to ``T5``.
        name: What it is about.
        bound: The least, in ``unit``.
        used: What the run used.
        unit: rollouts, updates or problems.
        ratio: ``used / bound``.
        beaten: The run did with less than the bound allows even at the unlucky ends of what was measured.
        sentence: What it means.
    """

    theorem: str
    name: str
    bound: float
    used: float
    unit: str
    ratio: float
    beaten: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class RunBounds:
    """Everything that the run's files allow to say.

    Attributes:
        rows: One per theorem that applies.
        binding: Theorem that asks for the most rollouts; ``None`` without rows.
        ceiling: What choosing prompts could add; ``None`` where no success rates were measured.
        probed: How many probe prompts, at the base policy, the ceiling is of; 0 where it is of the world's skills at every evaluation.
        informative: Share of informative groups that the run had.
        left_out: Why the other theorems are missing.
    """

    rows: tuple[UsedBound, ...]
    binding: str | None
    ceiling: SelectionCeiling | None
    probed: int
    informative: float | None
    left_out: tuple[str, ...]


def probe_summary(events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Mean divergence per update with its standard error, and what measuring it took; None if it was off.

    The error adds two sources: which prompts were drawn (they stay the same over the run, so it is that of the prompts'
    means) and which updates were measured.

    Args:
        events: The run's ``probe`` events; others are passed over.
    """
    probes = [e for e in events if e["kind"] == "probe"]
    if not probes:
        return None
    values = np.array([e["values"] for e in probes], np.float64)  # (measured, prompts)
    variances = [m.var(ddof=1) / len(m) for m in (values.mean(axis=0), values.mean(axis=1)) if len(m) > 1]
    return {
        "kl": float(values.mean()), "standard_error": math.sqrt(sum(variances)) if variances else None,
        "largest": float(values.mean(axis=1).max()), "measured": len(probes), "prompts": values.shape[1],
        "seconds": round(sum(e["seconds"] for e in probes), 3),
    }  # fmt: skip


def run_bounds(directory: str | Path) -> RunBounds:
    """Bounds for what a run reached at its last evaluation.

    Raises:
        RunError: Not a run directory, or it holds no two evaluations or no round.
    """
    return bounds_of(read_run(Path(directory)))


def bounds_of(run: RunRecord) -> RunBounds:
    """`run_bounds` of a run that has been read.

    Raises:
        RunError: It holds no two evaluations or no round.
    """
    evals = [e for e in run.events.get("eval", []) if number(e.get("accuracy")) is not None]
    if len(evals) < 2 or not run.picks:
        raise RunError(
            f"The run {run.name} holds {len(evals)} evaluations and {len(run.events.get('round', []))} rounds; bounds need its "
            "success before and after. Train with --eval-problems above 0."
        )
    world = world_of(run)
    left_out: list[str] = []
    rows = [_first_signal(run)]
    first, last = evals[0], evals[-1]
    if last["accuracy"] <= first["accuracy"]:
        left_out.append(
            f"T2 to T5: accuracy did not rise ({first['accuracy']:.1%} to {last['accuracy']:.1%}), so nothing was travelled."
        )
    else:
        rows += _travel(run, evals, world, left_out)
        rows += _of_world(run, evals, world, left_out)
    costs = [
        (row.bound * rollouts_per_update(run) if row.unit == "updates" else row.bound, row.theorem)
        for row in rows
        if row.unit == "rollouts" or (row.unit == "updates" and updates_cost_groups(run))
    ]
    informative = number(run.summary.get("informative_share"))
    ceiling, probed = _ceiling(run, evals, world)
    return RunBounds(
        rows=tuple(rows), binding=max(costs)[1] if costs else None, ceiling=ceiling, probed=probed,
        informative=informative, left_out=tuple(left_out),
    )  # fmt: skip


def _first_signal(run: RunRecord) -> UsedBound:
    replay = bool(setting(run, "replay", 0))
    replayed = {event.get("round") for event in run.events.get("round", []) if number(event.get("replayed"))}
    used = groups = 0
    came = False
    for pick in run.picks:
        used, groups = used + pick.rollouts, groups + 1
        if pick.outcome == "mixed" or pick.round in replayed:
            came = True
            break
    sentence = (
        f"The first group that could teach anything was number {groups}, after {used:,} rollouts."
        if came
        else f"None of the {groups:,} groups ({used:,} rollouts) could teach anything."
    )
    rates = base_rates(run)
    # One run can be lucky: a replayed rollout, or one right and one wrong, is the least.
    bound = 1.0 if replay else 2.0
    chance = float(np.mean(mixed_probability(rates, group_size(run)))) if rates else 0.0
    measured = (
        f" At the base policy's rates, as measured on {len(rates)} probed prompts, one random group of {group_size(run)} in {1 / chance:.3g} is mixed."
        if chance
        else ""
    )
    return UsedBound(
        theorem="T1", name="first signal", bound=bound, used=used, unit="rollouts", ratio=used / bound, beaten=came and used < bound,
        sentence=sentence + measured,
    )  # fmt: skip


def _travel(run: RunRecord, evals: list[dict[str, Any]], world: dict[str, Any], left_out: list[str]) -> list[UsedBound]:
    measured = probe_summary(run.events.get("probe", []))
    sampling = run.config.get("resolved", {}).get("sampling", {})
    trained_at = number(run.config.get("settings", {}).get("temperature")) or 1.0
    if measured is None or measured["kl"] <= 0:
        left_out.append("T2: the KL of updates was not measured; train with --probe above 0.")
        return []
    if sampling.get("temperature", 1.0) != trained_at or sampling.get("top_p", 1.0) != 1.0 or sampling.get("top_k"):
        left_out.append(
            "T2: accuracy was measured with another sampling than the KL (temperature, top-p or top-k), so it is that of another policy."
        )
        return []
    first, last, kappa = evals[0], evals[-1], measured["kl"]
    used = float(last["spent"]["updates"])
    try:
        known = {name: world["numbers"][name] for name in ("rates", "frequencies")} if world else {}
        found = lower_bound(target=last["accuracy"], p0=first["accuracy"], kappa=kappa, **known)
        bound = next(b.value for b in found.bounds if b.theorem == "T2")
    except ValueError as error:
        left_out.append(f"T2: {error}")
        return []
    most = kappa + 2 * (measured["standard_error"] or kappa)
    beaten = any(_outran(first, later, most) for later in evals[1:])
    give = "" if measured["standard_error"] is None else f" +- {measured['standard_error']:.2g}"
    return [
        UsedBound(
            theorem="T2", name="travel", bound=bound, used=used, unit="updates", ratio=used / bound, beaten=beaten,
            sentence=f"At this step size ({kappa:.3g}{give} nats per update, measured at {measured['measured']} updates) no method gets from "
            f"{first['accuracy']:.1%} to {last['accuracy']:.1%} in fewer than {bound:,.0f} updates; this run used {used:,.0f}.",
        )
    ]  # fmt: skip


def _outran(first: Mapping[str, Any], later: Mapping[str, Any], kappa: float) -> bool:
    """Whether even from the high end of the first accuracy to the low end of the later one took too few updates."""
    low, high = number(later.get("low")), number(first.get("high"))
    if low is None or high is None or not 0 < high < low:
        return False
    used = float(later["spent"]["updates"])
    # The second needs only the mean of the updates' divergences, which is what was measured; the first is quicker and larger.
    return used < float(travel_updates(high, low, kappa)) and used < profile_updates([high], low, kappa)


def _of_world(
    run: RunRecord, evals: list[dict[str, Any]], world: dict[str, Any], left_out: list[str]
) -> list[UsedBound]:
    if not world:
        left_out.append(
            "T3 to T5: strategies, shares and base rates of skills are known for the packaged worlds and policy alone."
        )
        return []
    last = evals[-1]
    used = float(last["spent"]["rollouts"])
    try:
        found = lower_bound(target=last["accuracy"], group_size=group_size(run), **world["numbers"])
        low = number(last.get("low")) or 0.0
        numbers = world["numbers"]
        floor = elicitation_floor(numbers["rates"], low, weights=numbers["frequencies"], delta=_LUCK).rollouts
    except ValueError as error:
        left_out.append(f"T3 to T5: {error}")
        return []
    searched = int(sum(number(p.get("searched")) or 0 for e in run.events.get("round", []) for p in e.get("picks", ())))
    if searched:
        left_out.append(
            f"T3 and T5: {searched:,} rollouts left out what had failed in their group, so a first success may come sooner than "
            "the base policy's rates say."
        )
    rows = []
    for bound in found.bounds:
        if bound.theorem not in (("T4",) if searched else ("T3", "T4", "T5")) or bound.value <= 0:
            continue
        spent = float(setting(run, "problems", math.nan)) if bound.theorem == "T4" else used
        rows.append(
            UsedBound(
                theorem=bound.theorem, name=bound.name, bound=bound.value, used=spent, unit=bound.unit, ratio=spent / bound.value,
                beaten=bound.theorem == "T5" and used < floor, sentence=bound.sentence,
            )
        )  # fmt: skip
    return rows


def _ceiling(run: RunRecord, evals: list[dict[str, Any]], world: dict[str, Any]) -> tuple[SelectionCeiling | None, int]:
    """From the success per skill at every evaluation where the world is known, else from the base policy's probed prompts."""
    table = [
        np.repeat([e["by_skill"].get(name, math.nan) for name in world["names"]], world["slots"]).tolist()
        for e in (evals if world else [])
        if e.get("by_skill")
    ]
    probed = [] if table else base_rates(run)
    if not (table or probed):
        return None, 0
    return selection_ceiling(table or [probed], group_size(run)), len(probed)
