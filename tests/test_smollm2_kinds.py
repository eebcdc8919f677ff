"""benchmarks/smollm2/kinds.py: problems by kind, and what a run found of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dopr.config import TrainSettings
from dopr.tasks.problems import Problem
from dopr.train.prepare import prepare

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks" / "smollm2"
DATA = "gym:lcm?min_numbers=2,max_numbers=2,min_value=2,max_value=12"


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import kinds

    return kinds


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("4 and 12", "12", "larger"),
        ("5 and 8", "40", "product"),
        ("8 and 12", "24", "other"),
        ("7 and 7", "7", "larger"),
    ],
)
def test_multiples_by_what_answers_them(kinds: ModuleType, question: str, answer: str, kind: str) -> None:
    problem = Problem(
        extra={}, id="0", prompt=f"Find the Least Common Multiple (LCM) of these numbers: {question}", answer=answer
    )
    assert kinds.kind_of_multiple(problem) == kind


def test_what_runs_found_and_know(kinds: ModuleType, tmp_path: Path) -> None:
    settings = {"data": DATA, "size": 200, "eval_problems": 64, "eval_samples": 2, "seed": 3}
    job = prepare(TrainSettings(**settings))
    _, kind = kinds.KINDS["gym:lcm"]
    product = next(problem.id for problem in job.problems if kind(problem) == "product")
    larger = [kind(problem) == "larger" for problem in job.held_out]
    nothing = [0] * len(larger)
    events = [
        {"kind": "eval", "correct": nothing, "samples": 2, "greedy": nothing},
        {
            "kind": "round",
            "picks": [{"id": product, "rewards": [0.0, 0.0, 1.0]}, {"id": product, "rewards": [0.0] * 8}],
        },
        {"kind": "eval", "correct": list(map(int, larger)), "samples": 2, "greedy": list(map(int, larger))},
    ]
    run = tmp_path / "runs" / "dopr--lr5e-06--seed3"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"settings": settings}))
    (run / "events.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    shown = subprocess.run([sys.executable, SCRIPTS / "kinds.py", tmp_path], capture_output=True, text=True, check=True)
    line = next(line for line in shown.stdout.splitlines() if "all**" in line)
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "**dopr--lr5e-06, all**",
        *("0 of 0 (0)", "1 of 2 (11)", "0 of 0 (0)"),
        *("0% -> 50%", "0% -> 0%", "0% -> 0%"),
        *("0% -> 100%", "0% -> 0%", "0% -> 0%"),
    ]
