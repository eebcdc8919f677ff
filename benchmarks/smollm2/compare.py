"""SmolLM2-135M, dopr beside its controls, after `make smollm2` (an hour on two cores a task, two more with --large):

    python benchmarks/smollm2/compare.py sums           single-digit sums and differences
    python benchmarks/smollm2/compare.py equations      linear equations in one unknown
    python benchmarks/smollm2/compare.py multiples      least common multiples of two numbers up to 12

One `dopr compare` a task, so a comparison that was stopped goes on where it stopped. Its page, figure and compact results are copied to
docs/results/smollm2_TASK.{md,svg,json}; with --large to smollm2_TASK_large.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean

TARGET = Path(__file__).resolve().parents[2] / "docs" / "results"
LENGTH = 5  # tokens of the longest completion
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
COMMON = [
    "--size", "200", "--budget", "rollouts=240", "--model", "smollm2-135m", "--no-chat", "--reward", "number",
    "--max-completion-length", str(LENGTH), "--reference", "random-one+budget=rollouts=400", "--evaluations", "8", "--eval-problems", "64", "--eval-samples", "2",
    "--probe", "0", "--warn-constant", "0", "--learning-rates", "5e-6", "--learning-rates", "1e-5", "--tuning-seeds", "1",
]  # fmt: skip
ARMS = ["dopr", "random-one+budget=rollouts=400", "uniform+prompts_per_round=8+budget=rollouts=512"]
#: Field-standard batch GRPO, in micro-batches that fit into memory; two minutes an update.
LARGE = "uniform+prompts_per_round=64+micro_batch=64+budget=rollouts=3072"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--work", type=Path, help="where the runs are kept; default: below ~/.cache/dopr")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="batch GRPO 64 x 8, too, on a page of its own")
    options = parser.parse_args()
    data, about, template = TASKS[options.task]
    name = f"smollm2_{options.task}" + "_large" * options.large
    work = options.work or Path.home() / ".cache" / "dopr" / name
    arms = ARMS + [LARGE] * options.large
    # fmt: off
    command = [sys.executable, "-m", "dopr", "compare", "--data", data, "--template", template, *COMMON, "--strategies", ",".join(arms)]
    # fmt: on
    command += ["--seeds", str(options.seeds), "--jobs", "2", "--output", str(work)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, env=environment, check=True)
    if options.large:  # again with the runs at hand, for the rollouts to its final accuracy minus a point
        results = json.loads((work / "results.json").read_text())
        final = mean(mean(run["correct"]) for run in results["runs"][LARGE])
        goals = [*results["summary"]["targets"], final - 0.01]
        targets = [part for goal in goals for part in ("--targets", f"{goal:.4f}")]
        subprocess.run(command + targets, env=environment, check=True)
    page = (work / "results.md").read_text().replace(str(work), "DIR").replace("accuracy.svg", f"{name}.svg")
    flags = " --large" * options.large
    made = f"Made by `python benchmarks/smollm2/compare.py {options.task} --seeds {options.seeds}{flags}`; do not edit. {about} from reasoning-gym, {LENGTH} tokens an answer."
    if options.large:
        made += " The highest target is the final accuracy of batch GRPO 64 x 8 minus a point."
    (TARGET / f"{name}.md").write_text(page.replace("\n\n", f"\n\n{made}\n\n", 1))
    shutil.copyfile(work / "accuracy.svg", TARGET / f"{name}.svg")
    shutil.copyfile(work / "results.json", TARGET / f"{name}.json")


if __name__ == "__main__":
    main()
