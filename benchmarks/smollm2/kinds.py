"""SmolLM2's sums or multiples by kind of problem: what each run rolled out and found of a kind, and what it answers in the end.

    python benchmarks/smollm2/kinds.py DIR      DIR: what `compare.py TASK --work DIR` or `fresh.py TASK --work DIR` kept

Prints a table in Markdown: a line for each run, then one for each arm's reported runs together (tuning seeds, 1000 on, apart).
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.compare.arms import TUNING_SEED
from dopr.config import TrainSettings
from dopr.tasks.problems import Problem
from dopr.train.prepare import prepare


def kind_of_sum(problem: Problem) -> str:
    if int(problem.answer or 0) < 0:
        return "below zero"
    return "sums" if "+" in str(problem.prompt) else "differences"


def kind_of_multiple(problem: Problem) -> str:
    """By what answers it: the larger number where the other divides it, the product where they share no factor, or neither."""
    a, b = (int(number) for number in re.findall(r"\d+", str(problem.prompt))[:2])
    multiple = math.lcm(a, b)
    return "larger" if multiple == max(a, b) else "product" if multiple == a * b else "other"


KINDS: dict[str, tuple[tuple[str, ...], Callable[[Problem], str]]] = {
    "gym:chain_sum": (("sums", "differences", "below zero"), kind_of_sum),
    "gym:lcm": (("larger", "product", "other"), kind_of_multiple),
}


@dataclass(frozen=True)
class Counts:
    """Of one run by kind, each of shape (kinds,): groups, those with a success, their rollouts; held-out problems, and how many are
    right in the beginning and in the end, sampled and greedily."""

    groups: NDArray[np.float64]
    found: NDArray[np.float64]
    rollouts: NDArray[np.float64]
    held_out: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def cells(self) -> list[str]:
        work = [f"{f:.0f} of {g:.0f} ({n:.0f})" for f, g, n in zip(self.found, self.groups, self.rollouts, strict=True)]
        shares = [right / self.held_out for right in (*self.before, *self.after)]
        each = [" -> ".join(f"{share[i]:.0%}" for share in shares[at::2]) for at in (0, 1) for i in range(len(work))]
        return work + each


def prepared(config: dict[str, Any]) -> Any:
    known = {field.name for field in fields(TrainSettings)} - {"output", "resume"}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items() if key in known}
    return prepare(TrainSettings(**given))


def counts(run: Path, job: Any, names: tuple[str, ...], kind: Callable[[Problem], str]) -> Counts:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    kinds = {problem.id: kind(problem) for problem in job.problems}
    picks = [pick for event in events if event["kind"] == "round" for pick in event["picks"]]
    held = np.array([kind(problem) for problem in job.held_out])

    def by_kind(value: Callable[[Any], float]) -> NDArray[np.float64]:
        return np.array([sum(value(p) for p in picks if kinds[p["id"]] == name) for name in names], float)

    def right(event: dict[str, Any]) -> NDArray[np.float64]:
        """Sampled and greedily, shape (2, kinds)."""
        each = [np.array(event["correct"]) / event["samples"], np.array(event["greedy"])]
        return np.array([[of[held == name].sum() for name in names] for of in each], float)

    evaluations = [event for event in events if event["kind"] == "eval"]
    return Counts(
        by_kind(lambda p: 1), by_kind(lambda p: max(p["rewards"]) > 0), by_kind(lambda p: len(p["rewards"])),
        np.array([(held == name).sum() for name in names], float), right(evaluations[0]), right(evaluations[-1]),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("work", type=Path)
    runs = sorted((parser.parse_args().work / "runs").glob("*--seed*[0-9]"))
    jobs: dict[int, Any] = {}  # arms of a seed share their problems
    arms: dict[str, Counts] = {}
    for run in runs:
        config = json.loads((run / "config.json").read_text())
        settings = config.get("settings", config)
        names, kind = KINDS[settings["data"].split("?")[0]]
        seed = settings["seed"]
        jobs[seed] = jobs.get(seed) or prepared(settings)
        if run == runs[0]:
            heads = [f"{what}, {name}" for what in ("found", "sampled", "greedy") for name in names]
            print(f"| run | {' | '.join(heads)} |\n|{'---|' * (1 + len(heads))}")
        of = counts(run, jobs[seed], names, kind)
        print(f"| {run.name} | {' | '.join(of.cells())} |")
        arm = run.name.rpartition("--seed")[0]
        if seed < TUNING_SEED:
            arms[arm] = arms[arm] + of if arm in arms else of
    for arm, of in arms.items():
        print(f"| **{arm}, all** | {' | '.join(of.cells())} |")
    print(
        "\nFound: groups with a success, of all of the kind (their rollouts). Sampled, greedy: held-out accuracy before -> after."
    )


if __name__ == "__main__":
    main()
