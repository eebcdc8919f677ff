"""The sums of SmolLM2's comparison by kind: what each run found below zero, and held-out accuracy at its end.

    python benchmarks/smollm2/kinds.py DIR      DIR: what `compare.py sums --work DIR` kept

Prints a table in Markdown, a line for each run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from dopr.config import TrainSettings
from dopr.tasks.problems import Problem
from dopr.train.prepare import prepare

KINDS = ("sums", "differences", "below zero")


def kind(problem: Problem) -> str:
    if int(problem.answer or 0) < 0:
        return "below zero"
    return "sums" if "+" in str(problem.prompt) else "differences"


def prepared(config: dict[str, Any]) -> Any:
    known = {field.name for field in fields(TrainSettings)} - {"output", "resume"}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items() if key in known}
    return prepare(TrainSettings(**given))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("work", type=Path)
    print("| run | groups below zero | of them with a success | " + " | ".join(KINDS) + " |")
    print("|---" * (3 + len(KINDS)) + "|")
    for run in sorted((parser.parse_args().work / "runs").glob("*--seed*[0-9]")):
        config = json.loads((run / "config.json").read_text())
        job = prepared(config.get("settings", config))
        kinds = {problem.id: kind(problem) for problem in job.problems}
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        picks = [pick for event in events if event["kind"] == "round" for pick in event["picks"]]
        below = [max(pick["rewards"]) > 0 for pick in picks if kinds[pick["id"]] == "below zero"]
        share = np.array([e["correct"] for e in events if e["kind"] == "eval"][-1]) / job.settings.eval_samples
        held = np.array([kind(problem) for problem in job.held_out])
        cells = [f"{share[held == name].mean():.0%}" for name in KINDS]
        print("| " + " | ".join([run.name, str(len(below)), str(sum(below)), *cells]) + " |")


if __name__ == "__main__":
    main()
