"""SmolLM2-135M on problem sets that the rule was not developed on, sampled and decoded greedily (an hour a task on two cores):

    python benchmarks/smollm2/fresh.py sums --seeds 4           then the same with multiples; --summarise makes the page again
    python benchmarks/smollm2/fresh.py sums --seeds 4 --add     four more problem sets to those that are stored, by the same sources of dopr

dopr, its random control, one random prompt, batches of 8 x 8 and DAPO's filter, all with 240 rollouts and with the rates that were best over
so many in the tuning of compare.py, on another seed. Sampling at temperature 1 rewards a policy for being surer of what it would have answered anyway, so
policies are also decoded greedily, before and after: what is above the base policy's greedy decoding was learned.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from compare import ARMS, RANDOM, ROLLOUTS, TARGET, TASKS, arguments
from suite import ROOT, commit, source_hash

from dopr.compare.page import percent
from dopr.compare.results import CURVE, RunResult, summarise, verdict
from dopr.config import TrainSettings
from dopr.config_layers import build
from dopr.metrics import Interval, over_seeds
from dopr.train.prepare import prepare

FIRST = 209  # seeds from here on, never looked at in development (sums' 200 to 204 showed a fault of the rule, multiples' 205 to 207 of the split)
NAME = "smollm2_fresh"
REFERENCE = "random-one"
#: Sets of compare.py's page that no version of the rule was developed on either.
ALSO = {"multiples": "seeds 0 to 2, whose problems were dealt anew after the rule's last change"}
SAYS = {
    "dopr": "**dopr**",
    RANDOM: "dopr, but prompts at random",
    REFERENCE: "one random prompt",
    "uniform+prompts_per_round=8": "batch GRPO 8 x 8",
    "dapo+prompts_per_round=8": "DAPO's filter 8 x 8",
}


def rates(task: str) -> dict[str, float]:
    """Arms without their budgets, and the rate that was best for each on another seed over the rollouts that arms are compared at."""
    stored = json.loads((TARGET / f"smollm2_{task}.json").read_text())["meta"]["rates"]
    return {arm.partition("+budget=")[0]: best_rate(arm, stored[arm]) for arm in ARMS if arm in stored}


def best_rate(arm: str, tuned: Mapping[str, Any]) -> float:
    """By the area over the rollouts of a fresh run, where the page has that; for batches it chose by the area over twice as many."""
    found = tuned.get("at_least", {})
    if abs(found.get("rollouts", 0) - ROLLOUTS) > 0.05 * ROLLOUTS:
        return float(tuned["rate"])
    tried = found["tried"][arm]
    return float(max(tried, key=lambda rate: tried[rate]))


def measure(task: str, chosen: Mapping[str, float], first: int, seeds: int, work: Path) -> dict[str, Any]:
    """Arms with their rates on all seeds from ``first`` on; a comparison that was stopped goes on where it stopped."""
    names = {arm: f"{arm}+learning_rate={rate:g}" for arm, rate in chosen.items()}
    command = [*arguments(task, names.values(), seeds, str(work), first), "--reference", names[REFERENCE]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-m", "dopr", *command], env=environment, check=True)
    found = json.loads((work / "results.json").read_text())["runs"]
    golds = {seed: golds_of(work, seed) for seed in range(first, first + seeds)}
    runs = {arm: found[name] for arm, name in names.items()}
    return {
        "commit": commit(),
        "sources": source_hash(),
        "rates": dict(chosen),
        "golds": list(golds.values()),
        "runs": runs,
    }


def joined(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured before, and other seeds after it."""
    runs = {arm: [*rows, *now["runs"][arm]] for arm, rows in before["runs"].items()}
    return {**before, "golds": [*before["golds"], *now["golds"]], "runs": runs}


def golds_of(work: Path, seed: int) -> list[str]:
    """Right answers of the problems that were held out of a seed's runs, in the order of their results."""
    config = next((work / "runs").glob(f"*--seed{seed}/config.json"))
    prepared = prepare(build(TrainSettings, json.loads(config.read_text())["settings"]))
    return [str(problem.answer) for problem in prepared.held_out]


def rows_of(results: Mapping[str, Any]) -> list[str]:
    """The table of one family of problems."""
    runs = {arm: [RunResult.from_dict(run) for run in rows] for arm, rows in results["runs"].items()}
    summary = summarise(runs, reference=REFERENCE, unequal=True)
    equal = summary["equal"]
    head = ["policy", "rate", "temperature 1", "by seed", f"minus one random prompt at {equal['rollouts']:.0f} rollouts",
            f"at {equal['tokens']:,.0f} tokens", "greedy", "minus the base policy's greedy"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    start = [run.curve[0, CURVE.index("accuracy")] for run in runs[REFERENCE]]
    before = [run.greedy[0].mean() for run in runs[REFERENCE] if run.greedy is not None]
    base = ["base policy", "", f"{np.mean(start):.1%}", by_seed(start), "", ""]
    lines.append(f"| {' | '.join([*base, f'{np.mean(before):.1%}', ''])} |")
    for arm in (name for name in SAYS if name in runs):
        row = summary["arms"][arm]
        against = [
            "" if arm == REFERENCE else f"{percent(at['difference'], '+')}, {at['verdict']}"
            for at in (row["equal"]["rollouts"], row["equal"]["tokens"])
        ]
        gain = row["greedy"]["gain"]
        cells = [
            SAYS[arm], f"{results['rates'][arm]:g}", percent(row["final"]), by_seed([run.correct.mean() for run in runs[arm]]),
            *against, percent(row["greedy"]["after"]), f"{percent(gain, '+')}, {verdict(Interval(**gain))}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def below_zero(results: Mapping[str, Any]) -> list[str]:
    """The table of the problems whose answer is below zero, where there are any: the base policy hardly knows the sign."""
    which = [np.array([gold.startswith("-") for gold in golds]) for golds in results["golds"]]
    if not all(mask.any() for mask in which):
        return []
    runs = {arm: [RunResult.from_dict(run) for run in rows] for arm, rows in results["runs"].items()}

    def shares(arm: str, end: int) -> tuple[list[float], list[float], list[float]]:
        """By seed: sampled after training on answers below zero; decoded there and on the others, before (end 0) or after (1)."""
        sampled, below, above = [], [], []
        for run, mask in zip(runs[arm], which, strict=True):
            decoded = np.asarray(run.greedy)[end]
            sampled.append(float(run.correct[mask].mean()))
            below.append(float(decoded[mask].mean()))
            above.append(float(decoded[~mask].mean()))
        return sampled, below, above

    lines = ["", f"On the {', '.join(str(int(mask.sum())) for mask in which)} held-out problems with answers below zero, and on the others:", "",
             "| policy | below zero, temperature 1 | by seed | minus one random prompt | below zero, greedy | by seed | others, greedy |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    _, below, above = shares(REFERENCE, 0)
    lines.append(f"| base policy | | | | {np.mean(below):.0%} | {by_seed(below)} | {np.mean(above):.1%} |")
    theirs = np.array(shares(REFERENCE, 1)[0])
    for arm in (name for name in SAYS if name in runs):
        sampled, below, above = shares(arm, 1)
        ahead = over_seeds(np.array(sampled) - theirs)
        against = "" if arm == REFERENCE else f"{percent(asdict(ahead), '+')}, {verdict(ahead)}"
        lines.append(
            f"| {SAYS[arm]} | {np.mean(sampled):.0%} | {by_seed(sampled)} | {against} | {np.mean(below):.0%} | {by_seed(below)} | {np.mean(above):.1%} |"
        )
    return lines


def all_sets(task: str, results: Mapping[str, Any]) -> list[str]:
    """Differences over these sets and those of compare.py's page, for the arms that have the same rate there."""
    if task not in ALSO:
        return []
    page = json.loads((TARGET / f"smollm2_{task}.json").read_text())
    runs: dict[str, list[RunResult]] = {}
    for name, rows in page["runs"].items():
        arm = name.partition("+budget=")[0]
        if page["meta"]["rates"][name]["rate"] == results["rates"].get(arm):
            runs[arm] = [RunResult.from_dict(run) for run in [*rows, *results["runs"][arm]]]
    if REFERENCE not in runs:
        return []
    limit = min(run.end("rollouts") for arm in runs.values() for run in arm)
    at = {arm: np.array([run.accuracy_at("rollouts", limit) for run in rows]) for arm, rows in runs.items()}
    pairs = [(arm, REFERENCE) for arm in SAYS if arm in at and arm != REFERENCE]
    pairs += [("dopr", RANDOM)] if RANDOM in at and "dopr" in at else []
    lines = ["", f"With {ALSO[task]} ([page](smollm2_{task}.md), commits {', '.join(sorted(set(page['meta']['commits'].values())))}), {len(at[REFERENCE])} sets in all, "
             f"for the arms with the same rate there, at {limit:.0f} rollouts and temperature 1:", "", "| policy | minus | by set | mean |", "|---|---|---|---|"]  # fmt: skip
    for arm, other in pairs:
        ahead = at[arm] - at[other]
        found = over_seeds(ahead)
        sets = ", ".join(f"{round(100 * one):+d}" for one in ahead)
        lines.append(f"| {SAYS[arm]} | {SAYS[other]} | {sets} | {percent(asdict(found), '+')}, {verdict(found)} |")
    return lines


def by_seed(shares: Sequence[float]) -> str:
    """``20%, 31%``."""
    return ", ".join(f"{share:.0%}" for share in shares)


def page(stored: Mapping[str, Mapping[str, Any]]) -> str:
    """All families of problems that were measured."""
    lines = [
        "# SmolLM2-135M on problem sets that the rule was not developed on", "",
        "Made by `python benchmarks/smollm2/fresh.py TASK`; do not edit. Policies of 240 rollouts of five tokens at most (whole batches: up to 320), at the learning rate that had the largest area over as many rollouts in the tuning of `compare.py`, on another seed (its pages choose by each arm's own budget, for batches a longer one). "
        "Intervals of accuracies are 95 % bootstrap over seeds and problems, those of differences Student's t over seeds, at equal rollouts and at equal tokens on interpolated curves.", "",
        "*Greedy*: the likeliest answer. A policy gains at temperature 1 by being surer of what it would have answered anyway; what is above the base policy's own greedy decoding, on the same problems, is more than that.",
    ]  # fmt: skip
    for task, results in stored.items():
        runs = results["runs"][REFERENCE]
        problems = ", ".join(str(len(run["correct"])) for run in runs)
        made = f"Seeds {runs[0]['seed']} to {runs[-1]['seed']} at commit {results['commit']}, held-out problems: {problems}."
        if runs[0]["seed"] < FIRST:
            made += (
                " They are made again at that commit alone: seeds begin later now, and problems are held out otherwise."
            )
        other = {arm: rate for arm, rate in rates(task).items() if results["rates"].get(arm, rate) != rate}
        if other:
            made += (
                " Since tuned anew, at other rates than here: "
                + ", ".join(f"{SAYS[arm].strip('*')} {rate:g}" for arm, rate in other.items())
                + f" ([page](smollm2_{task}.md))."
            )
        lines += [
            "",
            f"## {TASKS[task][1]}",
            "",
            made,
            "",
            *rows_of(results),
            *below_zero(results),
            *all_sets(task, results),
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("task", choices=TASKS, nargs="?", help="family of problems; none with --summarise")
    parser.add_argument("--work", type=Path, help="where the runs are kept; default: below ~/.cache/dopr")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--only", action="append", choices=[*SAYS], help="this arm (repeatable) and the reference; default: all"
    )
    parser.add_argument("--add", action="store_true", help="seeds after the stored ones, added to them")
    parser.add_argument("--summarise", action="store_true", help="only the page again, from the stored results")
    options = parser.parse_args()
    kept = TARGET / f"{NAME}.json"
    stored: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    if not options.summarise:
        if options.task is None:
            parser.error("which family of problems? " + ", ".join(TASKS))
        before, first = stored.get(options.task), FIRST
        chosen = {
            arm: rate for arm, rate in rates(options.task).items() if arm in (options.only or SAYS) or arm == REFERENCE
        }
        if options.add:
            if before is None or before.get("sources") != source_hash() or before["rates"] != chosen:
                parser.error("nothing of the same sources of dopr, arms and rates is stored; measure without --add")
            first = before["runs"][REFERENCE][-1]["seed"] + 1
        work = options.work or Path.home() / ".cache" / "dopr" / f"{NAME}_{options.task}_{first}"
        now = measure(options.task, chosen, first, options.seeds, work.resolve())
        if before and before["runs"] == now["runs"]:  # a page made again does not make its runs of another commit
            now["commit"] = before["commit"]
        stored[options.task] = joined(before, now) if options.add and before else now
        stored = {task: stored[task] for task in TASKS if task in stored}
        kept.write_text(json.dumps(stored) + "\n")
    (TARGET / f"{NAME}.md").write_text(page(stored))
    print((TARGET / f"{NAME}.md").relative_to(ROOT))


if __name__ == "__main__":
    main()
