"""Held-out problems are held out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dopr.config import TrainSettings, build
from dopr.errors import ConfigError
from dopr.models import resolve_model
from dopr.policy import load_policy
from dopr.train.prepare import learning_rate, prepare

SUMS = "gym:chain_sum?min_terms=2,max_terms=2,min_digits=1,max_digits=1"


def test_a_small_generated_task_never_trains_on_held_out_prompts() -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    job = prepare(build(TrainSettings, {"data": SUMS, "size": 200, "eval_problems": 64, "reward": "number"}))
    train, held = {p.prompt for p in job.problems}, {p.prompt for p in job.held_out}
    assert train
    assert held
    assert not train & held
    assert "same prompt left out" in job.held_out_from


def test_worlds_are_held_out_by_construction() -> None:
    job = prepare(build(TrainSettings, {"data": "world:mixed"}))
    assert not {p.prompt for p in job.problems} & {p.prompt for p in job.held_out}
    assert (len(job.problems), len(job.held_out)) == (2000, 256)


def write(path: Path, prompts: list[str]) -> str:
    path.write_text(
        "".join(
            json.dumps({"id": f"{path.stem}{i}", "q": 0, "prompt": p, "answer": "1"}) + "\n"
            for i, p in enumerate(prompts)
        )
    )
    return str(path)


def test_a_file_is_split_by_id_and_an_overlapping_evaluation_file_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", [f"p{i}" for i in range(50)])
    job = prepare(build(TrainSettings, {"data": data}))
    assert len(job.held_out) == 5
    assert not {p.id for p in job.problems} & {p.id for p in job.held_out}
    overlapping = write(tmp_path / "b.jsonl", ["new", "p3"])
    with pytest.raises(ConfigError, match="1 training problems are also evaluation problems"):
        prepare(build(TrainSettings, {"data": data, "eval_data": overlapping}))
    job = prepare(build(TrainSettings, {"data": data, "eval_problems": 0}))
    assert (len(job.problems), job.held_out) == (50, [])


def test_the_default_learning_rate_is_lower_for_few_problems_and_a_given_one_is_kept() -> None:
    model, _ = load_policy(resolve_model("tiny"))
    default, given = TrainSettings(), TrainSettings(learning_rate=3e-4)
    rates = [learning_rate(default, model, problems) for problems in (2, 8, 32, 2000)]
    assert rates == [5e-5, 1e-4, 2e-4, 2e-4]
    assert learning_rate(given, model, 1) == 3e-4
