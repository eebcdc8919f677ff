"""The page of the drawn worlds, from their stored runs. Called by run.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from draw import ROOT, SEED, SLIPS, world
from run import ARMS, FAMILIES, ROLLOUTS, WORLDS

from dopr.compare.results import CURVE, RunResult, verdict
from dopr.metrics import over_seeds

PAGE = ROOT / "docs" / "results" / "drawn_worlds.md"
OURS, BATCH = next(iter(ARMS)), "batch GRPO 64 x 8"
World = Mapping[str, RunResult]


def write(store: Mapping[str, Any]) -> None:
    """The page, of the worlds that every arm has run on."""
    names = [f"{number}.{index}" for number in FAMILIES for index in WORLDS]
    runs = {
        name: {label: _result(store[f"{name} | {label}"]) for label in ARMS if f"{name} | {label}" in store}
        for name in names
    }
    worlds = {name: arms for name, arms in runs.items() if len(arms) == len(ARMS)}
    missing = ", ".join(name for name in names if name not in worlds)
    lines = [*introduction(store, missing)]
    if worlds:
        lines += [*over_all(worlds), *by_world(worlds)]
    PAGE.write_text("\n".join(lines).rstrip("\n") + "\n")


def _result(run: Mapping[str, Any]) -> RunResult:
    return RunResult.from_dict({**run, "correct": []})


def introduction(store: Mapping[str, Any], missing: str) -> list[str]:
    by_arm = {label: {run["commit"] for key, run in store.items() if key.endswith(f" | {label}")} for label in ARMS}
    commits = "; ".join(f"{label} {', '.join(sorted(made))}" for label, made in by_arm.items())
    slips = ", ".join(f"{slip:.0%}" for slip in SLIPS)
    rates = "; ".join(f"{label} {arm.learning_rate:g}" for label, arm in ARMS.items())
    budgets = "; ".join(f"{label} {arm.rollouts:,}" for label, arm in ARMS.items())
    return [
        "# Worlds that nothing was tuned on", "",
        "Made by `python benchmarks/drawn_worlds/run.py`; do not edit. Raw runs: [drawn_worlds.json](drawn_worlds.json), "
        f"by the commits (a plus: with changes not yet committed): {commits}.", "",
        *([f"**Not complete yet**: {missing}.", ""] if missing else []),
        f"The five worlds of the [suite](suite.md) were looked at while the rule was made. These {len(FAMILIES) * len(WORLDS)} were drawn after it was settled (but for how long searches last and which policy they ask, which no run here was used for), by the first seed "
        f"({SEED}): {len(FAMILIES)} families of 25 skills with other words, right strategies and base rates, each with a base policy trained from nothing, and {len(WORLDS)} worlds a family, which hold 4 to 16 "
        "of its skills in random proportions, half of them the shared one, too (`benchmarks/drawn_worlds/draw.py`). "
        f"Base rates are even in log-odds. In the families {slips} of all answers have one digit wrong whatever the strategy, so wrong answers are many, and a policy has to become sure "
        "as well as right. Nothing is tuned: all arms have the rate (and batch size) that the suite's worlds chose most often "
        f"({rates}). Budgets in rollouts: {budgets}. 256 held-out problems, one run a world; intervals are Student's t over worlds.", "",
    ]  # fmt: skip


def over_all(worlds: Mapping[str, World]) -> list[str]:
    """Means over worlds, at equal rollouts and at equal tokens."""
    tokens = {name: min(run.curve[-1, CURVE.index("tokens")] for run in arms.values()) for name, arms in worlds.items()}
    lines = [
        "## Mean over worlds", "",
        f"Area: mean accuracy over the first {ROLLOUTS} rollouts. Tokens: accuracy at the tokens that every arm's run of that world had. Differences are to {OURS}, paired by world. "
        f"Costs go to the final accuracy of {BATCH} minus a point; the ratio is the geometric mean over worlds of an arm's rollouts to {OURS}'s, with an arm's whole budget where it did "
        f"not get there (*at least*), and {OURS}'s whole budget where that did not.", "",
        f"| arm | area | difference |  | at {ROLLOUTS} rollouts | difference | at equal tokens | difference | worlds at the target | x the rollouts of {OURS} to it |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for label in ARMS:
        cells = [label]
        for i, value in enumerate((_area, _at_rollouts, lambda run, name: run.accuracy_at("tokens", tokens[name]))):
            mine = np.array([value(arms[label], name) for name, arms in worlds.items()])
            ours = np.array([value(arms[OURS], name) for name, arms in worlds.items()])
            difference = over_seeds(mine - ours)
            cells += [f"{mine.mean():.1%}", f"{difference:+.1%}" if label != OURS else ""]
            cells += [(verdict(difference) if label != OURS else "")] if i == 0 else []
        reached = [np.isfinite(_cost(arms[label], _target(arms))) for arms in worlds.values()]
        cells += [f"{sum(reached)} of {len(worlds)}", _ratio(worlds, label) if label != OURS else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _area(run: RunResult, name: str) -> float:
    return run.mean_accuracy(ROLLOUTS)


def _at_rollouts(run: RunResult, name: str) -> float:
    return run.accuracy_at("rollouts", ROLLOUTS)


def _target(arms: World) -> float:
    return float(arms[BATCH].curve[-1, CURVE.index("accuracy")]) - 0.01


def _cost(run: RunResult, target: float) -> float:
    return run.interpolated_spent(target, "rollouts")


def _logs(worlds: Mapping[str, World], label: str) -> list[float]:
    """Per world, the logarithm of how many times the rollouts of ours an arm needs."""
    logs = []
    for arms in worlds.values():
        costs = [
            min(_cost(arms[some], _target(arms)), float(arms[some].curve[-1, CURVE.index("rollouts")]))
            for some in (label, OURS)
        ]
        logs.append(float(np.log(costs[0] / costs[1])))
    return logs


def _ratio(worlds: Mapping[str, World], label: str) -> str:
    found = over_seeds(_logs(worlds, label), least=-np.inf, most=np.inf)
    never = any(np.isinf(_cost(arms[label], _target(arms))) for arms in worlds.values())
    middle, low, high = (float(np.exp(value)) for value in (found.estimate, found.low, found.high))
    return f"{'at least ' * never}{middle:.1f} [{low:.1f}, {high:.1f}]"


def by_world(worlds: Mapping[str, World]) -> list[str]:
    lines = [
        "## World by world", "",
        f"Base: the policy's accuracy before training on the held-out problems. Target: what {BATCH} ends at, minus a point.", "",
        f"| world | skills | slips | base | target | rollouts of {OURS} to it | " + " | ".join(f"{label}" for label in ARMS if label != OURS) + f" | {OURS} at {ROLLOUTS} |",
        "|---" * (7 + len(ARMS) - 1) + "|",
    ]  # fmt: skip
    for name, arms in worlds.items():
        number, index = map(int, name.split("."))
        drawn, target = world(number, index), _target(arms)
        kinds = f"{len(drawn.skills)}{', shared' * (drawn.skills[0].name == 'sum')}"
        base = float(np.mean([run.curve[0, CURVE.index("accuracy")] for run in arms.values()]))
        costs = [_cost(run, target) for run in arms.values()]
        cells = [name, kinds, f"{SLIPS[number]:.0%}", f"{base:.1%}", f"{target:.1%}"]
        cells += [f"{cost:,.0f}" if np.isfinite(cost) else "not reached" for cost in costs]
        lines.append("| " + " | ".join([*cells, f"{_at_rollouts(arms[OURS], name):.1%}"]) + " |")
    return [*lines, ""]
