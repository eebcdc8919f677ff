"""The suite's page, from its stored results. Called by suite.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from suite import ARMS, BATCH, BUDGETS, COMMON, ONE, OURS, ROOT, SEEDS, SHORT, TUNED, WHOLE, Results, command_of
from suite_files import draw, write_baselines
from suite_numbers import Floats, World, at_equal, end, floor_of, ratio_to, reaches, scores_of, spent, target_of

from dopr.compare.page import cell, number, percent
from dopr.compare.results import CURVE, mean_over, spent_interval, verdict
from dopr.compare.scores import Ratio, over_worlds, share_of_gain
from dopr.metrics import Interval, over_seeds
from dopr.tasks.tiny import measured_success
from dopr.tasks.worlds import WORLD_NAMES, world_info

PAGE = ROOT / "docs" / "results" / "suite.md"
ORDER = [arm.label for arm in ARMS]
ABLATED = [arm.label for arm in ARMS if arm.group == "ablation"]
HIDDEN, KNOWN, BLIND = WHOLE, "dopr with known skills", "dopr without features"


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
    needed = [arm.label for arm in ARMS if arm.group != "preset"]
    missing = [name for name in WORLD_NAMES if not all(label in worlds.get(name, {}) for label in needed)]
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
        f"Every arm: three learning rates on tuning seeds of their own (two for dopr and its baselines, one for ablations and presets), the one with the largest area under the accuracy curve "
        f"then on {SEEDS} fresh seeds, which alone are reported. For the batch method of tuned size, sizes and rates are tuned together. "
        f"{COMMON['eval_problems']} held-out problems with one sample each, {COMMON['evaluations']} evaluations along the way. Budgets: {_budgets('mixed')} "
        f"({_budgets('shared-skill')} on shared-skill, which is soon mastered) rollouts with one prompt per update, with batches of 4 to 32 prompts, with 64, and in ablations. Accuracies between evaluations are interpolated. "
        "Costs are medians over seeds with their range, where the line to the first evaluation at the target crosses it; the target is the final accuracy of "
        f"{BATCH} minus one point. Ratios are of medians with a 95 % bootstrap interval over seeds; *at least* where most seeds of the other "
        "method did not get there and its whole budget stands in for the cost. Accuracies, scores and their differences have Student's t intervals over seeds, shares of a gain Fieller's. Seconds are of "
        "single-threaded runs, two side by side on two cores, count training alone, and are rough where the machine had other work to do.", "",
        "| world | problems | base mean | below 1.5 % | above 85 % |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name in WORLD_NAMES:
        info, measured = world_info(name), measured_success(name)
        mean = sum(s.frequency * measured[s.name].rate for s in info.skills)
        hopeless = sum(s.frequency for s in info.skills if s.base_success <= 0.015)
        mastered = sum(s.frequency for s in info.skills if s.base_success >= 0.85)
        lines.append(f"| {name} | {info.summary} | {mean:.1%} | {hopeless:.0%} | {mastered:.0%} |")
    return [*lines, ""]


def _budgets(world: str) -> str:
    return ", ".join(f"{budget:,}" for budget in BUDGETS[world])


# -- text ----------------------------------------------------------------------------------------------------------


def show_ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    if ratio.estimate == 0:
        return "not reached"
    return f"{'at least ' if ratio.at_least else ''}{ratio.estimate:.1f} [{ratio.low:.1f}, {ratio.high:.1f}]"


def of_floor(costs: Sequence[float], floor: float) -> str:
    """Median cost as a multiple of T5's floor."""
    middle = float(np.median(costs))
    return f"{middle / floor:.1f}" if floor and np.isfinite(middle) else ""


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
            used = of_floor(spent(arms[label], target, "rollouts"), floor)
            rows.append([label, *(number(cost[c]) for c in cost), *ratios, clock, used])
        lines += table(
            ["arm", "rollouts", "tokens", "seconds", "updates", "x fewer rollouts than 64 x 8", "than tuned batch", "than one random prompt",
             "x less time than 64 x 8", "used / T5"], rows,
        )  # fmt: skip
    labels = [label for label in labels if reaches(arms[label], budget)]
    tokens = min(end(run, "tokens") for label in labels for run in arms[label].runs)
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
        *lines, f"The row of dopr again: `{command_of(ARMS[0], name, max(kept.tuning_seeds for kept in arms.values()))}`. Any other with its arm instead (ablations and "
        f"presets with `--tuning-seeds 1`): {others}.", "",
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
        final = over_seeds(
            [a.correct.mean() - b.correct.mean() for a, b in zip(arms[OURS].runs, arms[BATCH].runs, strict=True)]
        )
        rows.append([
            name, f"{target:.1%}", number(cost), *(show_ratio(ratio_to(arms, other, OURS, target)) for other in (BATCH, TUNED, ONE)),
            show_ratio(ratio_to(arms, BATCH, OURS, target, "seconds")),
            of_floor(spent(arms[OURS], target, "rollouts"), floor), show(final, "+.1%"), f"{np.mean([run.select for run in arms[OURS].runs]):.2%}",
        ])  # fmt: skip
    if not rows:
        return []
    return [
        "## dopr at a glance", "",
        *table(
            ["world", "target", "rollouts to it", "x fewer than 64 x 8 (goal 20)", "than tuned batch (goal 8)", "than one random prompt (goal 3)",
             "x less time than 64 x 8 (goal 5)", "used / T5 (goal 3)", "final accuracy, at its smaller budget, minus that of 64 x 8",
             "selection's share of a round (goal below 1 %)"], rows,
        ),
        "T5 counts draws from the base policy. dopr's search leaves out what has failed, which T5 does not cover ([theory.md](../theory.md)): it may use less. "
        "A round is counted with all its updates.", "",
    ]  # fmt: skip


def mean_table(worlds: Results) -> list[str]:
    """One score per arm over the worlds that have dopr and its main baselines, for the arms that all of these have."""
    needed = [OURS, BATCH, TUNED, ONE]
    complete = {
        name: scores_of(arms, BUDGETS[name][0])
        for name, arms in worlds.items()
        if all(label in arms for label in needed)
    }
    lines = ["## Mean over worlds", ""] if complete else []
    if not complete:
        return lines
    lines += [
        f"The score of a run is its mean accuracy over the rollouts of the one-prompt budget (area under its curve up to it), as a share of the way from the base policy (0) to "
        f"that world's best arm (1). Worlds count alike: {', '.join(complete)}. Differences to dopr are paired by seed.", "",
    ]  # fmt: skip
    rows = []
    labels = [label for label in ORDER if all(label in found for found in complete.values())]
    for label in sorted(labels, key=lambda one: -np.mean([found[one].mean() for found in complete.values()])):
        mean = over_worlds([[found[label]] for found in complete.values()])
        difference = over_worlds([[found[label], found[OURS]] for found in complete.values()], (1, -1))
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
                f"{np.mean([run.mean_accuracy(BUDGETS[name][SHORT]) for run in arms[label].runs]):.1%}"
                if label in arms
                else ""
            )
            reached = "not reached" if cost is None else f"{cost['estimate']:,.0f}"
            cells.append(f"{area}, {reached}" if label in arms else "")
        rows.append([label, *cells])
    return [
        "## Ablations", "",
        f"Mean accuracy over the first {BUDGETS['mixed'][SHORT]:,} rollouts ({BUDGETS['shared-skill'][SHORT]:,} on shared-skill), and median rollouts "
        "to the target, where most seeds got there within their budget. Rates are tuned at that budget, also that of dopr whole; the last two rows are those of above.", "",
        *table(["arm", *worlds], rows),
    ]  # fmt: skip


def features_table(worlds: Results) -> list[str]:
    """The gain of hidden states as a share of the gain of known skill labels; worlds of one skill have no labels to know."""
    shown = {
        name: scores_of(arms, BUDGETS[name][SHORT])
        for name, arms in worlds.items()
        if len(world_info(name).skills) > 1 and all(label in arms for label in (HIDDEN, KNOWN, BLIND))
    }
    if not shown:
        return []
    rows = []
    for names in (*([name] for name in shown), list(shown)):
        values = [(shown[name][BLIND], shown[name][HIDDEN], shown[name][KNOWN]) for name in names]
        hidden, known = over_worlds(values, (-1, 1, 0)), over_worlds(values, (-1, 0, 1))
        row = [names[0] if len(names) == 1 else "mean", show(hidden, "+.2f"), show(known, "+.2f"), _share(values)]
        if all(ONE in worlds[name] for name in names):
            row.append(_share([(shown[name][ONE], shown[name][HIDDEN], shown[name][KNOWN]) for name in names]))
        rows.append([*row, ""][:5])
        if len(shown) == 1:
            break
    return [
        "## Without known skills", "",
        "Gain in score over dopr without features: with the policy's hidden states (the default), and with the true skill of every prompt. The last "
        "column is the share of the gain over one random prompt.", "",
        *table(["world", "hidden states", "known skills", "share of the gain (goal 80 %)", "of the gain over one random prompt"], rows),
    ]  # fmt: skip


def _share(values: list[tuple[Floats, Floats, Floats]]) -> str:
    share = share_of_gain(values)
    if share is None:
        return "no gain of labels shown"
    low, high = (f"{100 * end:.1f}" if abs(end) < 10 else "unbounded" for end in (share.low, share.high))
    return f"{share.estimate:.1%} [{low}, {high}]"
