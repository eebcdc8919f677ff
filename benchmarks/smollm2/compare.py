"""SmolLM2-135M, dopr beside its controls: `python benchmarks/smollm2/compare.py` after `make smollm2` (half an hour on two cores).

One `dopr compare`, so a comparison that was stopped goes on where it stopped. Its page, figure and compact results are copied to
docs/results/smollm2_sums.{md,svg,json}.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "docs" / "results"
NAME = "smollm2_sums"
COMMAND = [
    "compare", "--model", "smollm2-135m", "--data", "gym:chain_sum?min_terms=2,max_terms=2,min_digits=1,max_digits=1", "--size", "200",
    "--no-chat", "--template", "{prompt}", "--reward", "number", "--max-completion-length", "5",
    "--strategies", "dopr,random-one+budget=rollouts=400,uniform+prompts_per_round=8+budget=rollouts=512",
    "--reference", "random-one+budget=rollouts=400", "--budget", "rollouts=120", "--evaluations", "8", "--eval-problems", "64", "--eval-samples", "2",
    "--probe", "0", "--warn-constant", "0", "--learning-rates", "5e-6", "--learning-rates", "1e-5", "--tuning-seeds", "1",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "dopr" / NAME)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    command = [sys.executable, "-m", "dopr", *COMMAND, "--seeds", str(options.seeds), "--jobs", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, "--output", str(options.work)], env=environment, check=True)
    page = (
        (options.work / "results.md")
        .read_text()
        .replace(str(options.work), "DIR")
        .replace("accuracy.svg", f"{NAME}.svg")
    )
    about = "Made by `python benchmarks/smollm2/compare.py`; do not edit. Single-digit sums and differences from reasoning-gym, five tokens an answer."
    (TARGET / f"{NAME}.md").write_text(page.replace("\n\n", f"\n\n{about}\n\n", 1))
    shutil.copyfile(options.work / "accuracy.svg", TARGET / f"{NAME}.svg")
    shutil.copyfile(options.work / "results.json", TARGET / f"{NAME}.json")


if __name__ == "__main__":
    main()
