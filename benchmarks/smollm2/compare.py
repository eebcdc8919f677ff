"""SmolLM2-135M, dopr beside its controls, after `make smollm2` (an hour and a half on two cores a task, two more with --large):

    python benchmarks/smollm2/compare.py sums           single-digit sums and differences
    python benchmarks/smollm2/compare.py equations      linear equations in one unknown
    python benchmarks/smollm2/compare.py multiples      least common multiples of two numbers up to 12

One `dopr compare` a task, so a comparison that was stopped goes on where it stopped. Its page, figure and compact results are copied to
docs/results/smollm2_TASK.{md,svg,json}; with --large, which adds batches of 64 x 8 (multiples: 32 x 8), to smollm2_TASK_large. With --only, other arms' runs are those that are stored, so that
a changed rule needs its own runs alone; the page says which commit made each arm's. --tuning DIR takes the tuning of another `dopr compare` of these arms, if the same rates win.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from dopr.compare.page import draw, markdown
from dopr.compare.results import RunResult, summarise

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from suite import ROOT, commit

TARGET = ROOT / "docs" / "results"
LENGTH = 5  # tokens of the longest completion
ROLLOUTS = 240  # of an arm without a budget of its own
#: task: problems, what it is, and the prompt: an answer must be short enough for a base rate above zero
TASKS = {
    "sums": (
        "gym:chain_sum?min_terms=2,max_terms=2,min_digits=1,max_digits=1",
        "Single-digit sums and differences",
        "{prompt}",
    ),
    "equations": (
        "gym:simple_equations?min_terms=2,max_terms=2,min_value=1,max_value=9",
        "Linear equations in one unknown",
        "{prompt}",
    ),
    "multiples": (
        "gym:lcm?min_numbers=2,max_numbers=2,min_value=2,max_value=12",
        "Least common multiples of two numbers up to 12",
        "{prompt}\nThe final answer is",
    ),
}
REFERENCE = "random-one+budget=rollouts=400"
RANDOM = "dopr+option.random=true"  # all of dopr but the choice
ARMS = ["dopr", RANDOM, REFERENCE, *(f"{name}+prompts_per_round=8+budget=rollouts=512" for name in ("uniform", "dapo"))]
COMMON = [
    "--size", "200", "--budget", f"rollouts={ROLLOUTS}", "--model", "smollm2-135m", "--no-chat", "--reward", "number",
    "--max-completion-length", str(LENGTH), "--evaluations", "8", "--eval-problems", "64", "--eval-samples", "2",
    "--probe", "0", "--warn-constant", "0", "--learning-rates", "2.5e-6", "--learning-rates", "5e-6", "--learning-rates", "1e-5",
    "--tuning-seeds", "1",
]  # fmt: skip
#: Batch GRPO of the field's size, in micro-batches that fit into memory; two minutes an update. Of multiples there are but 35 to 45 to
#: train on, so a batch holds 32 there.
LARGE = dict.fromkeys(TASKS, "uniform+prompts_per_round=64+micro_batch=64+budget=rollouts=3072") | {
    "multiples": "uniform+prompts_per_round=32+micro_batch=64+budget=rollouts=1536"
}


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Results with the arms of ``new``, and of ``old`` those that it lacks; seeds are paired, so only those that all arms have.

    Arms that this script has no more are left out.
    """
    runs = {
        name: rows for name, rows in (old.get("runs", {}) | new["runs"]).items() if name in (*ARMS, *LARGE.values())
    }
    seeds = set.intersection(*({run["seed"] for run in rows} for rows in runs.values()))
    runs = {
        name: sorted((run for run in rows if run["seed"] in seeds), key=lambda run: run["seed"])
        for name, rows in runs.items()
    }
    before = old.get("meta", {"rates": {}})
    commits = before.get("commits", {})
    # A page made again from the same runs does not make them of another commit.
    again = {n: c for n, c in new["meta"]["commits"].items() if n not in commits or old["runs"][n] != new["runs"][n]}
    kept = {"rates": before["rates"] | new["meta"]["rates"], "commits": commits | again}
    meta = new["meta"] | {about: {name: v for name, v in of.items() if name in runs} for about, of in kept.items()}
    if all(len(rate["grid"]) == 1 for rate in new["meta"]["rates"].values()):  # it says nothing of the others' tuning
        meta["tuning"] = before.get("tuning", meta["tuning"])
    return {"meta": meta, "runs": runs}


def take_tuning(results: dict[str, Any], tuned: dict[str, Any]) -> None:
    """Put newly tuned rates in the place of those of ``results``, whose runs are kept where the same rates win."""
    for arm, rate in tuned["rates"].items():
        before = results["meta"]["rates"][arm]["rate"]
        if rate["rate"] != before:
            raise SystemExit(f"{arm}: {rate['rate']:g} wins, its runs are at {before:g}. Run it again with --only.")
    results["meta"]["rates"] |= tuned["rates"]


def arguments(task: str, arms: Iterable[str], seeds: int, output: str, first: int = 0) -> list[str]:
    """What `dopr compare` is called with; ``first`` is the first seed that is reported."""
    data, _, template = TASKS[task]
    given = ["compare", "--data", data, "--template", template, *COMMON, "--strategies", ",".join(arms)]
    given += ["--reference", REFERENCE] if REFERENCE in arms else []
    given += ["--seed", str(first)] if first else []
    return [*given, "--seeds", str(seeds), "--jobs", "2", "--output", output]


def write(results: dict[str, Any], name: str) -> None:
    """The page, its figure, and ``results``, which get their summary."""
    runs = {arm: [RunResult.from_dict(run) for run in rows] for arm, rows in results["runs"].items()}
    targets: list[float] = []
    if large := runs.keys() & set(LARGE.values()):
        targets = [
            *summarise(runs, reference=REFERENCE, unequal=True)["targets"],
            mean(run.correct.mean() for run in runs[large.pop()]) - 0.01,
        ]
    results["summary"] = summarise(
        runs, reference=REFERENCE, targets=[round(goal, 4) for goal in targets], unequal=True
    )
    draw(runs, REFERENCE, TARGET / f"{name}.svg")
    page = markdown(results["summary"], results["meta"], f"{name}.svg")
    (TARGET / f"{name}.md").write_text(page.replace("\n\n", f"\n\n{results['meta']['made']}\n\n", 1))
    (TARGET / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--work", type=Path, help="where the runs are kept; default: below ~/.cache/dopr")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="large batches, too, on a page of its own")
    parser.add_argument("--only", action="append", choices=[*ARMS, "large"], help="run this arm alone (repeatable)")
    parser.add_argument("--summarise", action="store_true", help="only the page again, from the stored results")
    parser.add_argument(
        "--tuning", type=Path, metavar="DIR", help="only the page again, with the tuning of the comparison in DIR"
    )
    options = parser.parse_args()
    about = TASKS[options.task][1]
    name = f"smollm2_{options.task}" + "_large" * options.large
    kept = TARGET / f"{name}.json"
    # A new page of the same seeds begins with the other's arms.
    stored = kept if kept.exists() else TARGET / f"smollm2_{options.task}.json"
    if options.summarise or options.tuning:
        results = json.loads(kept.read_text())
        if options.tuning:
            take_tuning(results, json.loads((options.tuning / "results.json").read_text())["meta"])
        write(results, name)
        return
    work = options.work or Path.home() / ".cache" / "dopr" / name
    large = LARGE[options.task]
    arms = [large if arm == "large" else arm for arm in options.only or ARMS + [large] * options.large]
    command = [sys.executable, "-m", "dopr", *arguments(options.task, arms, options.seeds, str(work))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, env=environment, check=True)
    new = json.loads((work / "results.json").read_text())
    new["meta"]["commits"] = dict.fromkeys(new["runs"], commit())
    results = merged(json.loads(stored.read_text()) if stored.exists() else {}, new)
    results["meta"]["command"] = shlex.join(["dopr", *arguments(options.task, results["runs"], options.seeds, "DIR")])
    made = f"Made by `python benchmarks/smollm2/compare.py {options.task} --seeds {options.seeds}{' --large' * options.large}`, arm by arm "
    made += "at the commits " + ", ".join(f"{made_by} ({arm})" for arm, made_by in results["meta"]["commits"].items())
    if len(results["meta"]["commits"]) < len(results["runs"]):
        made += ", others as an earlier version of this page has them"
    made += f"; do not edit. {about} from reasoning-gym, {LENGTH} tokens an answer."
    if options.large:
        made += " The last target is the final accuracy of the large batches minus a point."
    results["meta"]["made"] = made
    write(results, name)


if __name__ == "__main__":
    main()
