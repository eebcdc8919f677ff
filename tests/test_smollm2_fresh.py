"""The page of benchmarks/smollm2/fresh.py: sampled and greedy accuracy, beside the base policy's."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "benchmarks" / "smollm2"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setattr(sys, "path", [str(PLACE), *sys.path])
    spec = importlib.util.spec_from_file_location("smollm2_fresh", PLACE / "fresh.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(script: ModuleType) -> dict[str, Any]:
    """Two seeds of ten problems: dopr samples better by 20 points than the reference; greedily it gains 30 points, the reference none."""

    def run(seed: int, right: int, before: int, after: int) -> dict[str, Any]:
        return {
            "seed": seed, "correct": [1.0] * right + [0.0] * (10 - right), "informative": 0.5, "entropy": 0.5, "updates": 3,
            "curve": [[0, 0, 0.0, 0.2, None, 0], [200, 1000, 9.0, right / 10, None, 3]],
            "greedy": ["1" * n + "0" * (10 - n) for n in (before, after)],
        }  # fmt: skip

    runs = {
        "dopr": [run(200, 7, 5, 8), run(201, 5, 3, 6)],
        "random-one": [run(200, 5, 5, 5), run(201, 3, 3, 3)],
    }
    golds = [[str(n) for n in range(10)], [*map(str, range(8)), "-1", "-2"]]
    return {"sums": {"commit": "abc", "rates": {"dopr": 5e-6, "random-one": 1e-5}, "golds": golds, "runs": runs}}


def test_greedy_accuracy_stands_beside_the_base_policys_on_the_same_problems(script: ModuleType) -> None:
    page = script.page(made(script))
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    head, base, dopr, one = rows
    assert base[head.index("temperature 1")] == "20.0%"
    assert base[head.index("greedy")] == "40.0%"
    assert dopr[head.index("greedy")].startswith("70.0% [")
    assert dopr[head.index("by seed")] == "70%, 50%"
    assert dopr[head.index("minus the base policy's greedy")] == "+30.0% [+30.0, +30.0], better"
    assert one[head.index("minus the base policy's greedy")] == "+0.0% [+0.0, +0.0], no difference shown"
    at = head.index("minus one random prompt at 200 rollouts")
    assert dopr[at].startswith("+20.0% [")
    assert one[at] == one[at + 1] == ""
    assert "Seeds 200 to 201 at commit abc, held-out problems: 10, 10." in page


def test_the_page_says_which_arms_have_been_tuned_anew_since(script: ModuleType, monkeypatch: Any) -> None:
    monkeypatch.setattr(script, "rates", lambda task: {"dopr": 5e-6, "random-one": 5e-6, script.RANDOM: 1.0})
    assert "tuned anew, at other rates than here: one random prompt 5e-06 ([page](smollm2_sums.md))." in script.page(
        made(script)
    )
    monkeypatch.setattr(script, "rates", lambda task: {"dopr": 5e-6, "random-one": 1e-5})
    assert "tuned anew" not in script.page(made(script))


def test_answers_below_zero_stand_apart_where_every_set_has_some(script: ModuleType) -> None:
    results = made(script)["sums"]
    assert script.below_zero(results) == []  # the first set has none
    results["golds"] = [[*map(str, range(7)), "-1", "-2", "-3"], [*map(str, range(6)), "-1", "-2", "-3", "-4"]]
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in script.below_zero(results) if line.startswith("| ")]
    assert rows[1] == ["base policy", "", "", "", "0%", "0%, 0%", "60.7%"]  # 5 of 7 and 3 of 6 others
    # Right are the first so many: of dopr's 7 and 5 none below zero; decoded 8 and 6, so one of three and none of four.
    assert rows[2][1:3] == ["0%", "0%, 0%"]
    assert rows[2][4:] == ["17%", "33%, 0%", "100.0%"]
    assert rows[2][3].endswith("no difference shown")
    assert rows[3] == ["one random prompt", "0%", "0%, 0%", "", "0%", "0%, 0%", "60.7%"]


def test_rates_are_those_of_the_stored_pages_without_their_budgets(script: ModuleType) -> None:
    stored = json.loads((ROOT / "docs" / "results" / "smollm2_sums.json").read_text())["meta"]["rates"]
    found = script.rates("sums")
    assert set(found) == set(script.SAYS)
    assert found["random-one"] == stored["random-one+budget=rollouts=400"]["rate"]
    assert found["dopr"] == stored["dopr"]["rate"]


def test_rates_are_the_best_over_the_rollouts_that_arms_are_compared_at(script: ModuleType) -> None:
    tried = {"tried": {"a": {"1e-05": 0.3, "2e-05": 0.4}}, "rate": 2e-5}
    assert script.best_rate("a", tried) == 2e-5
    found = {"tried": {"a": {"1e-05": 0.25, "2e-05": 0.2}}}
    assert script.best_rate("a", tried | {"at_least": found | {"rollouts": 241}}) == 1e-5
    assert (
        script.best_rate("a", tried | {"at_least": found | {"rollouts": 512}}) == 2e-5
    )  # of a comparison of batches alone


def test_other_sets_that_nothing_was_developed_on_count_where_the_rates_are_the_same(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = made(script)["sums"]
    monkeypatch.setattr(script, "TARGET", tmp_path)
    longer = {"random-one": "random-one+budget=rollouts=400", "dopr": "dopr"}
    page = {
        "runs": {longer[arm]: rows[:1] for arm, rows in results["runs"].items()},
        "meta": {"rates": {"dopr": {"rate": 5e-6}, longer["random-one"]: {"rate": 1e-5}}, "commits": {"dopr": "c1"}},
    }
    (tmp_path / "smollm2_multiples.json").write_text(json.dumps(page))
    rows = [line for line in script.all_sets("multiples", results) if line.startswith("| **")]
    assert rows == ["| **dopr** | one random prompt | +20, +20, +20 | +20.0% [+20.0, +20.0], better |"]
    page["meta"]["rates"]["dopr"]["rate"] = 1e-5  # another rate is another arm
    (tmp_path / "smollm2_multiples.json").write_text(json.dumps(page))
    assert not any("**dopr**" in line for line in script.all_sets("multiples", results))
    assert script.all_sets("sums", results) == []  # those were developed on


def test_the_stored_page_is_that_of_the_stored_results(script: ModuleType) -> None:
    kept = ROOT / "docs" / "results"
    stored = json.loads((kept / "smollm2_fresh.json").read_text())
    assert (kept / "smollm2_fresh.md").read_text() == script.page(stored)
    for results in stored.values():
        assert [len(golds) for golds in results["golds"]] == [len(run["correct"]) for run in results["runs"]["dopr"]]
        for rows in zip(*results["runs"].values(), strict=True):
            assert len({row["seed"] for row in rows}) == 1  # paired, and of one base policy on the same problems
            assert len({row["greedy"][0] for row in rows}) == 1


def test_more_problem_sets_join_those_before(script: ModuleType) -> None:
    before, now = made(script)["sums"], made(script)["sums"]
    for rows in now["runs"].values():
        for row in rows:
            row["seed"] += 2
    page = script.page({"sums": script.joined(before, now)})
    assert "Seeds 200 to 203 at commit abc, held-out problems: 10, 10, 10, 10." in page
    assert "| 70%, 50%, 70%, 50% |" in page


def test_sets_are_not_added_to_those_of_other_sources(
    script: ModuleType, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(script, "TARGET", tmp_path)
    (tmp_path / "smollm2_fresh.json").write_text(json.dumps({"sums": made(script)["sums"] | {"sources": "others"}}))
    (tmp_path / "smollm2_sums.json").write_text((ROOT / "docs" / "results" / "smollm2_sums.json").read_text())
    monkeypatch.setattr(sys, "argv", ["fresh.py", "sums", "--add", "--seeds", "1"])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 2
    assert "measure without --add" in capsys.readouterr().err
