"""Rankings of problems from a trace, against their definitions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dopr.config import TrainSettings
from dopr.config_layers import as_dict
from dopr.errors import ConfigError
from dopr.rank import RANKINGS, rank
from dopr.trace import read_trace
from dopr.train.prepare import prepare
from trace_kit import dopr, published, run_dir


def test_rankings_equal_their_definitions(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    series = {f"p{i}": (rng.integers(0, 9, 12) / 8).tolist() for i in range(20)}
    trace = read_trace(published(tmp_path, series))
    table = np.array(list(series.values()))
    mean = table.mean(axis=0)
    expected = {
        "std": table.std(axis=1),
        "variance": (table * (1 - table)).mean(axis=1),
        "limr": 1 - ((table - mean) ** 2).sum(axis=1) / ((1 - mean) ** 2).sum(),
    }
    for by, scores in expected.items():
        got = rank(trace, by)
        assert [s for _, s in got] == sorted((s for _, s in got), reverse=True)
        assert dict(got) == pytest.approx(dict(zip(series, scores, strict=True)))
    with pytest.raises(ConfigError, match="does not say what the rollouts answered"):
        rank(trace, "disagreement")
    with pytest.raises(ConfigError, match=r"no ranking 'sdt'. Did you mean 'std'"):
        rank(trace, "sdt")
    assert set(RANKINGS) == {*expected, "disagreement"}


def test_disagreement_is_ranked_from_a_run(tmp_path: Path) -> None:
    trace = read_trace(
        run_dir(tmp_path, [[("a", [0.0, 0.0], 0.2)], [("b", [0.0, 0.0], 0.9)], [("a", [0.0, 1.0], 0.4)]])
    )
    assert rank(trace, "disagreement") == [("b", 0.9), ("a", pytest.approx(0.3))]


def test_prompts_visited_once_are_not_ranked_by_how_they_changed(tmp_path: Path) -> None:
    series = {f"once{i}": [0.5] for i in range(20)} | {"a": [0.0, 1.0], "b": [0.5, 0.75]}
    trace = read_trace(published(tmp_path, series))
    assert rank(trace, "std") == [("a", 0.5), ("b", 0.125)]
    assert {i for i, _ in rank(trace, "limr")} == {"a", "b"}
    assert len(rank(trace, "variance")) == 22
    done = dopr("rank", str(tmp_path / "trace.json"), "--by", "std", "--top", "5")
    assert done.returncode == 2
    assert "at least two visits" in done.stderr
    assert "has 2 of them; top is 5" in done.stderr
    for by in ("std", "limr"):
        with pytest.raises(ConfigError, match="was visited once"):
            rank(read_trace(published(tmp_path, {"x": [0.5], "y": [0.0]})), by)


def test_a_cut_among_ties_is_named(tmp_path: Path) -> None:
    trace = published(tmp_path, {f"p{i}": [0.0, 0.5] for i in range(9)} | {"best": [0.0, 1.0]})
    done = dopr("rank", str(trace), "--top", "4")
    assert "the cut falls among 9 prompts that all score 0.250" in " ".join(done.stdout.split())
    assert "Warning" not in dopr("rank", str(trace), "--top", "1").stdout
    assert "Warning" not in dopr("rank", str(trace), "--top", "10").stdout


def test_ranked_problems_of_code_are_written_as_they_can_be_trained_on(tmp_path: Path) -> None:
    trace = published(tmp_path, {"a": [0.5, 0.25], "b": [0.0, 1.0]})
    source, top = tmp_path / "code.jsonl", tmp_path / "top.jsonl"
    rows = [{"id": name, "prompt": f"Write {name}.", "tests": [f"assert {name}() == 1"]} for name in "ab"]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = dopr("rank", str(trace), "--data", str(source), "--output", str(top))
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in top.read_text().splitlines()]
    assert sorted(written, key=lambda row: row["id"]) == rows


def test_columns_of_the_problems_can_be_named_and_a_runs_log_stands_for_the_run(tmp_path: Path) -> None:
    trace = published(tmp_path, {"a": [0.5, 0.25], "b": [0.0, 1.0]})
    source, top = tmp_path / "odd.jsonl", tmp_path / "top.jsonl"
    source.write_text("".join(json.dumps({"no": n, "ask": f"What is {n}?", "say": n}) + "\n" for n in "ab"))
    named = ("--prompt-column", "ask", "--answer-column", "say", "--id-column", "no")
    done = dopr("rank", str(trace), "--data", str(source), *named, "--output", str(top))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["answer"] for line in top.read_text().splitlines()] == ["b", "a"]

    run = run_dir(tmp_path, [[(n, [0.0, 1.0], 0.5)] for n in "abab"])
    settings = as_dict(TrainSettings(data=str(source), prompt_column="ask", answer_column="say", id_column="no"))
    (run / "config.json").write_text(json.dumps({"settings": settings, "resolved": {}}))
    for given, file in ((run, "1.jsonl"), (run / "events.jsonl", "2.jsonl")):
        done = dopr("rank", str(given), "--top", "2", "--output", str(tmp_path / file))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "1.jsonl").read_text() == (tmp_path / "2.jsonl").read_text()


def test_problems_of_a_task_whose_splits_share_prompts_are_those_of_the_run(tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    settings = TrainSettings(data="gym:lcm?min_numbers=2,max_numbers=2,min_value=2,max_value=12", size=60)
    trained = prepare(settings).problems
    dealt = [p for p in trained if "/test/" in p.id]
    assert dealt  # else this tests nothing
    run = run_dir(tmp_path, [[(p.id, [0.0, 1.0], 0.5)] for p in [*dealt, *dealt]])
    (run / "config.json").write_text(json.dumps({"settings": as_dict(settings), "resolved": {}}))
    done = dopr("rank", str(run), "--top", str(len(dealt)), "--output", str(tmp_path / "top.jsonl"))
    assert done.returncode == 0, done.stderr
    written = {row["id"]: row["prompt"] for row in map(json.loads, (tmp_path / "top.jsonl").read_text().splitlines())}
    assert written == {p.id: p.prompt for p in dealt}
