"""The suite's page, figure and packaged baseline figures, from its stored results. Called by suite.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from suite import ARMS, BATCH, BUDGETS, COMMON, ONE, OURS, ROOT, SEEDS, TUNED, Results, Stored, command_of

from dopr import theory
from dopr.compare.page import cell, number, percent
from dopr.compare.results import CURVE, RunResult, mean_over, spent_interval, verdict
from dopr.compare.scores import Ratio, cost_ratio, over_worlds, scores, share_of_gain
from dopr.metrics import Interval, bootstrap
from dopr.tasks.tiny import measured_success
from dopr.tasks.worlds import WORLD_NAMES, world_info

PAGE = ROOT / "docs" / "results" / "suite.md"
FIGURE = ROOT / "docs" / "results" / "suite.svg"
BASELINES = ROOT / "src" / "dopr" / "assets" / "baselines.json"
ORDER = [arm.label for arm in ARMS]
ABLATED = [OURS, *(arm.label for arm in ARMS if arm.group == "ablation")]
HIDDEN, KNOWN, BLIND = OURS, "dopr with known skills", "dopr without features"

World = dict[str, Stored]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def write(results: Results) -> None:
    """Page, figure and baselines."""
    worlds = {name: results[name] for name in WORLD_NAMES if results.get(name)}
    lines = [*introduction(worlds), *headline(worlds), *mean_table(worlds)]
    lines += [*ablation_table(worlds), *features_table(worlds)]
    for name, arms in worlds.items():
        lines += world_section(name, arms)
    PAGE.write_text("\n".join(lines).rstrip("\n") + "\n")
    write_baselines(worlds)
    if worlds:
        draw(worlds)
    print(PAGE.read_text())


def introduction(worlds: Results) -> list[str]:
    missing = [name for name in WORLD_NAMES if not all(arm.label in worlds.get(name, {}) for arm in ARMS)]
    commits = sorted({kept.commit for arms in worlds.values() for kept in arms.values()})
    lines = [
        "# The benchmark suite", "",
        "Made by `python benchmarks/suite.py`; do not edit. Raw results: [suite.json](suite.json). What did not work, and why: [log.md](../log.md).",
        f"Run at commit {', '.join(commits)} (a plus: with changes not yet committed)." if commits else "Nothing has been run yet.", "",
    ]  # fmt: skip
    if missing:
        lines += [f"**Not complete yet**: {', '.join(missing)}.", ""]
    if worlds:
        lines += ["![held-out accuracy against rollouts](suite.svg)", ""]
    lines += [
        f"Every arm: three learning rates on tuning seeds of their own (two, ablations one), the one with the largest area under the accuracy curve "
        f"then on {SEEDS} fresh seeds, which alone are reported. For the batch method of tuned size, sizes and rates are tuned together. "
        f"{COMMON['eval_problems']} held-out problems with one sample each, {COMMON['evaluations']} evaluations along the way. Budgets: 2,500 rollouts "
        "with one prompt per update, 6,000 with batches of 4 to 32 prompts, 16,000 with 64 (1,000, 2,400 and 6,400 on shared-skill, which is soon mastered). Accuracies between evaluations are interpolated. "
        "Costs are medians over seeds with their range, where the line to the first evaluation at the target crosses it; the target is the final accuracy of "
        f"{BATCH} minus one point. Ratios are of medians with a 95 % bootstrap interval over seeds; *at least* where most seeds of the other "
        "method did not get there and its whole budget stands in for the cost. Other intervals are 95 % bootstraps over seeds. Seconds are of "
        "single-threaded runs, two side by side on two cores, and count training alone.", "",
        "| world | problems | base mean | below 1.5 % | above 85 % |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name in WORLD_NAMES:
        info, measured = world_info(name), measured_success(name)
        mean = sum(s.frequency * measured[s.name].rate for s in info.skills)
        hopeless = sum(s.frequency for s in info.skills if s.base_success <= 0.015)
        mastered = sum(s.frequency for s in info.skills if s.base_success >= 0.85)
        lines.append(f"| {name} | {info.summary} | {mean:.1%} | {hopeless:.0%} | {mastered:.0%} |")
    return [*lines, ""]


# -- arithmetic on one world ---------------------------------------------------------------------------------------


def end(run: RunResult, column: str) -> float:
    return float(run.curve[-1, CURVE.index(column)])


def target_of(arms: World) -> float | None:
    """Final accuracy of the batch reference minus one point."""
    if BATCH not in arms:
        return None
    return float(np.mean([r.correct.mean() for r in arms[BATCH].runs])) - 0.01


def spent(kept: Stored, target: float, column: str) -> list[float]:
    return [run.interpolated_spent(target, column) for run in kept.runs]


def ratio_to(arms: World, other: str, label: str, target: float, column: str = "rollouts") -> Ratio | None:
    """How many times more ``other`` spent than ``label`` to the target."""
    if other not in arms or label not in arms:
        return None
    budget = float(np.mean([end(run, column) for run in arms[other].runs]))
    mine = spent(arms[label], target, column)
    return cost_ratio(spent(arms[other], target, column), mine, budget=budget)


def at_equal(arms: World, label: str, column: str, limit: float) -> tuple[Interval, Interval | None]:
    """Accuracy at ``limit``, and its difference to the batch reference, paired by seed."""
    mine = np.array([run.accuracy_at(column, limit) for run in arms[label].runs])
    accuracy = bootstrap(mine, rng=np.random.default_rng(0))
    if BATCH not in arms or label == BATCH:
        return accuracy, None
    theirs = np.array([run.accuracy_at(column, limit) for run in arms[BATCH].runs])
    return accuracy, bootstrap(mine - theirs, rng=np.random.default_rng(0))


def scores_of(world: str, arms: World) -> dict[str, Floats]:
    """Each arm's scores by seed; see ``dopr.compare.scores``."""
    base = float(
        np.mean([kept.runs[i].curve[0, CURVE.index("accuracy")] for kept in arms.values() for i in range(SEEDS)])
    )
    return scores(
        {label: [run.mean_accuracy(BUDGETS[world][0]) for run in kept.runs] for label, kept in arms.items()}, base
    )


def floor_of(world: str, target: float) -> float:
    """T5: rollouts until enough skills have shown a first success."""
    info, measured = world_info(world), measured_success(world)
    found = theory.elicitation_floor(
        [measured[s.name].rate for s in info.skills], target, weights=[s.frequency for s in info.skills]
    )
    return found.rollouts


# -- text ----------------------------------------------------------------------------------------------------------


def show_ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    if ratio.estimate == 0:
        return "not reached"
    return f"{'at least ' if ratio.at_least else ''}{ratio.estimate:.1f} [{ratio.low:.1f}, {ratio.high:.1f}]"


def show(interval: Interval | None, form: str = ".1%") -> str:
    """``62.1% [56.0, 68.0]``."""
    if interval is None:
        return ""
    if form.endswith("%"):
        return percent(
            {"estimate": interval.estimate, "low": interval.low, "high": interval.high},
            form[0] if form[0] == "+" else "",
        )
    return f"{interval.estimate:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]


def world_section(name: str, arms: World) -> list[str]:
    """Costs to the target, then where every arm stands at equal budgets and at its end."""
    target, labels = target_of(arms), [label for label in ORDER if label in arms]
    base = np.mean([arms[label].runs[0].curve[0, CURVE.index("accuracy")] for label in labels])
    budget, lines = BUDGETS[name][0], [f"## {name}", ""]
    if target is not None:
        floor = floor_of(name, min(target, 1.0))
        lines += [
            f"Target {target:.1%}, before {base:.1%}. Without transfer between skills T5 asks for {floor:,.0f} rollouts on average "
            "([theory.md](../theory.md)).", "",
        ]  # fmt: skip
        rows = []
        for label in labels:
            cost = {
                c: spent_interval(spent(arms[label], target, c)) for c in ("rollouts", "tokens", "seconds", "updates")
            }
            others = [("", "") if label == other else (other, "") for other in (BATCH, TUNED, ONE)]
            ratios = [show_ratio(ratio_to(arms, other, label, target)) if other else "" for other, _ in others]
            clock = "" if label == BATCH else show_ratio(ratio_to(arms, BATCH, label, target, "seconds"))
            used = "" if cost["rollouts"] is None or not floor else f"{cost['rollouts']['estimate'] / floor:.1f}"  # type: ignore[operator]
            rows.append([label, *(number(cost[c]) for c in cost), *ratios, clock, used])
        lines += table(
            ["arm", "rollouts", "tokens", "seconds", "updates", "x fewer rollouts than 64 x 8", "than tuned batch", "than one random prompt",
             "x less time than 64 x 8", "used / T5"], rows,
        )  # fmt: skip
    tokens = min(end(run, "tokens") for kept in arms.values() for run in kept.runs)
    rows = []
    for label in labels:
        kept = arms[label]
        accuracy, difference = at_equal(arms, label, "rollouts", budget)
        _, by_tokens = at_equal(arms, label, "tokens", tokens)
        worst = np.mean([end(run, "worst_skill") for run in kept.runs])
        used = np.mean([end(run, "rollouts") for run in kept.runs])
        rows.append([
            label, show(accuracy), show(difference, "+.1%"), show(by_tokens, "+.1%"), f"{show(mean_over([r.correct for r in kept.runs]))} at {used:,.0f}",
            f"{worst:.0%}", f"{np.mean([r.informative for r in kept.runs]):.0%}", f"{np.mean([r.entropy for r in kept.runs]):.2f}",
            f"{np.mean([r.select for r in kept.runs]):.2%}", f"{kept.rate:g}{' (edge)' if kept.edge else ''}",
        ])  # fmt: skip
    lines += table(
        ["arm", f"accuracy at {budget:,} rollouts", f"difference to {BATCH} there", f"at {tokens:,.0f} tokens", "at its end", "worst skill",
         "informative", "entropy", "selection's share of a round", "learning rate"], rows,
    )  # fmt: skip
    if TUNED in arms:
        kept = arms[TUNED]
        tried = "; ".join(f"{_batch_size(arm)}: {max(found.values()):.1%}" for arm, found in kept.tried.items())
        lines += [
            f"Batch size tuned: {_batch_size(kept.chosen)} prompts won (mean accuracy over the tuning runs at each size's best rate: {tried}).",
            "",
        ]
    others = "; ".join(f"{arm.label}: `{arm.on(name)}`" for arm in ARMS if arm.label in arms and arm.label != OURS)
    return [
        *lines, f"The row of dopr again: `{command_of(ARMS[0], name)}`. Any other with its arm instead (ablations and the fixed prompt with "
        f"`--tuning-seeds 1`): {others}.", "",
    ]  # fmt: skip


def _batch_size(arm: str) -> str:
    return next(pair.split("=")[1] for pair in arm.split("+") if pair.startswith("prompts_per_round="))


def headline(worlds: Results) -> list[str]:
    """The claims, world by world."""
    rows = []
    for name, arms in worlds.items():
        target = target_of(arms)
        if target is None or OURS not in arms:
            continue
        floor, cost = floor_of(name, target), spent_interval(spent(arms[OURS], target, "rollouts"))
        final = bootstrap(
            [a.correct.mean() - b.correct.mean() for a, b in zip(arms[OURS].runs, arms[BATCH].runs, strict=True)],
            rng=np.random.default_rng(0),
        )
        rows.append([
            name, f"{target:.1%}", number(cost), *(show_ratio(ratio_to(arms, other, OURS, target)) for other in (BATCH, TUNED, ONE)),
            show_ratio(ratio_to(arms, BATCH, OURS, target, "seconds")),
            "" if cost is None or not floor else f"{cost['estimate'] / floor:.1f}",  # type: ignore[operator]
            show(final, "+.1%"), f"{np.mean([run.select for run in arms[OURS].runs]):.2%}",
        ])  # fmt: skip
    if not rows:
        return []
    return [
        "## dopr at a glance", "",
        *table(
            ["world", "target", "rollouts to it", "x fewer than 64 x 8", "than tuned batch", "than one random prompt", "x less time than 64 x 8",
             "used / T5", "final accuracy (at its smaller budget) minus that of 64 x 8", "selection's share"], rows,
        ),
    ]  # fmt: skip


def mean_table(worlds: Results) -> list[str]:
    """One score per arm over the worlds that every one of the shown arms has."""
    complete = {name: scores_of(name, arms) for name, arms in worlds.items() if all(label in arms for label in ORDER)}
    lines = ["## Mean over worlds", ""] if complete else []
    if not complete:
        return lines
    lines += [
        f"The score of a run is its mean accuracy over the rollouts of the one-prompt budget (area under its curve up to 2,500, on shared-skill 1,000), as a share of the way from the base policy (0) to "
        f"that world's best arm (1). Worlds count alike: {', '.join(complete)}. Differences to dopr are paired by seed.", "",
    ]  # fmt: skip
    rows = []
    for label in sorted(ORDER, key=lambda one: -np.mean([found[one].mean() for found in complete.values()])):
        mean = over_worlds([[found[label]] for found in complete.values()], lambda mine: mine)
        difference = over_worlds(
            [[found[label], found[OURS]] for found in complete.values()], lambda mine, ours: mine - ours
        )
        judged = ["", ""] if label == OURS else [show(difference, "+.2f"), verdict(difference)]
        arm = next(one for one in ARMS if one.label == label)
        rows.append([
            label, f"`{cell(arm.arm)}`", show(mean, ".2f"), *judged, *(f"{found[label].mean():.2f}" for found in complete.values()),
        ])  # fmt: skip
    return [*lines, *table(["arm", "for `dopr compare`", "score", "difference to dopr", "", *complete], rows)]


def ablation_table(worlds: Results) -> list[str]:
    """What each lever is worth in every world: accuracy over the first rollouts, and rollouts to the target."""
    labels = [label for label in (*ABLATED, ONE, TUNED) if any(label in arms for arms in worlds.values())]
    if len(labels) < 2:
        return []
    rows = []
    for label in labels:
        cells = []
        for name, arms in worlds.items():
            target = target_of(arms)
            cost = (
                spent_interval(spent(arms[label], target, "rollouts")) if target is not None and label in arms else None
            )
            area = (
                f"{np.mean([run.mean_accuracy(BUDGETS[name][0]) for run in arms[label].runs]):.1%}"
                if label in arms
                else ""
            )
            reached = "not reached" if cost is None else f"{cost['estimate']:,.0f}"
            cells.append(f"{area}, {reached}" if label in arms else "")
        rows.append([label, *cells])
    return [
        "## Ablations", "", "Mean accuracy over the rollouts of the one-prompt budget, and median rollouts to the target.", "",
        *table(["arm", *worlds], rows),
    ]  # fmt: skip


def features_table(worlds: Results) -> list[str]:
    """The gain of hidden states as a share of the gain of known skill labels; worlds of one skill have no labels to know."""
    shown = {
        name: scores_of(name, arms)
        for name, arms in worlds.items()
        if len(world_info(name).skills) > 1 and all(label in arms for label in (HIDDEN, KNOWN, BLIND))
    }
    if not shown:
        return []
    rows = []
    for names in (*([name] for name in shown), list(shown)):
        values = [[shown[name][label] for label in (BLIND, HIDDEN, KNOWN)] for name in names]
        hidden, known = (over_worlds(values, gain) for gain in (_gain_of_hidden, _gain_of_known))
        share = show(over_worlds(values, share_of_gain), ".0%") if known.low > 0 else "labels gain nothing for sure"
        rows.append([names[0] if len(names) == 1 else "mean", show(hidden, "+.2f"), show(known, "+.2f"), share])
        if len(shown) == 1:
            break
    return [
        "## Without known skills", "",
        "Gain in score over dopr without features: with the policy's hidden states (the default), and with the true skill of every prompt.", "",
        *table(["world", "hidden states", "known skills", "share of the gain"], rows),
    ]  # fmt: skip


def _gain_of_hidden(blind: Floats, hidden: Floats, known: Floats) -> Floats:
    return hidden - blind


def _gain_of_known(blind: Floats, hidden: Floats, known: Floats) -> Floats:
    return known - blind


# -- files ---------------------------------------------------------------------------------------------------------


def write_baselines(worlds: Results) -> None:
    """Figures of the batch reference, for `dopr train` to print; worlds without results keep theirs."""
    stored = json.loads(BASELINES.read_text())
    for name, arms in worlds.items():
        target = target_of(arms)
        if target is None or spent_interval(spent(arms[BATCH], target, "rollouts")) is None:  # too few seeds got there
            continue
        stored["worlds"][name] = baseline_entry(arms[BATCH], target)
        stored["command"] = "python benchmarks/suite.py"
    BASELINES.write_text(json.dumps(stored, indent=1) + "\n")


def baseline_entry(kept: Stored, target: float) -> dict[str, Any]:
    def mean(value: Callable[[RunResult], float]) -> float:
        return float(np.mean([value(run) for run in kept.runs]))

    accuracy = bootstrap([run.correct.mean() for run in kept.runs], rng=np.random.default_rng(0))
    grid = np.linspace(0, min(end(run, "rollouts") for run in kept.runs), 41)
    return {
        "name": BATCH, "learning_rate": kept.rate, "seeds": len(kept.runs), "target": round(target, 4),
        "before": mean(lambda run: run.curve[0, CURVE.index("accuracy")]),
        **{c: spent_interval([run.spent_at(target, c) for run in kept.runs]) for c in ("rollouts", "tokens", "seconds")},
        "end": {
            "accuracy": {"estimate": accuracy.estimate, "low": accuracy.low, "high": accuracy.high},
            **{c: mean(lambda run, c=c: end(run, c)) for c in ("rollouts", "tokens", "seconds", "updates")},
        },
        "curve": [[round(float(at)), round(mean(lambda run, at=at: run.accuracy_at("rollouts", at)), 4)] for at in grid],
    }  # fmt: skip


def draw(worlds: Results) -> None:
    """Accuracy against rollouts: mean over seeds, the range over seeds behind dopr and the reference."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dopr"
    from matplotlib import pyplot as plt

    shown = [arm.label for arm in ARMS if arm.group == "baseline"]
    fig, axes = plt.subplots(1, len(worlds), figsize=(4.4 * len(worlds), 4.2), squeeze=False)
    for ax, (name, arms) in zip(axes[0], worlds.items(), strict=True):
        for colour, label in enumerate(shown):
            if label not in arms:
                continue
            runs = arms[label].runs
            grid = np.geomspace(40, min(end(run, "rollouts") for run in runs), 60)
            curves = np.array([[run.accuracy_at("rollouts", at) for at in grid] for run in runs])
            bold = label in (OURS, BATCH)
            ax.plot(
                grid, curves.mean(0), label=label, color=f"C{colour}", lw=2.4 if bold else 1.1, zorder=3 if bold else 2
            )
            if bold:
                ax.fill_between(grid, curves.min(0), curves.max(0), color=f"C{colour}", alpha=0.15, lw=0)
        target = target_of(arms)
        if target is not None:
            ax.axhline(target, color="grey", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel="rollouts", title=name, ylim=(0, 1))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("held-out accuracy")
    axes[0][0].legend(frameon=False, fontsize=7)
    fig.tight_layout()
    fig.savefig(FIGURE, metadata={"Date": None})
