"""The page of benchmarks/smollm2/compare.py when only some arms are run again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    spec = importlib.util.spec_from_file_location("smollm2_compare", ROOT / "benchmarks" / "smollm2" / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TARGET", tmp_path)
    return module


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / "results" / "smollm2_sums_large.json").read_text())
    return found


def test_one_arm_again_keeps_the_others_and_seeds_that_all_have(script: ModuleType) -> None:
    old = stored()
    again = [run | {"updates": 7} for run in reversed(old["runs"]["dopr"])][:2]
    meta = {"rates": {"dopr": old["meta"]["rates"]["dopr"] | {"rate": 0.5}}, "commits": {"dopr": "abc"}}
    results = script.merged(old, {"meta": old["meta"] | meta, "runs": {"dopr": again}})
    seeds = [run["seed"] for run in again]
    assert set(results["runs"]) == set(old["runs"])
    for name, rows in results["runs"].items():
        assert sorted(run["seed"] for run in rows) == sorted(seeds)
        wanted = {r["seed"]: r for r in (again if name == "dopr" else old["runs"][name])}
        assert all(run == wanted[run["seed"]] for run in rows)
        assert [run["seed"] for run in rows] == sorted(seeds)  # arms are paired in this order
    assert results["meta"]["rates"]["dopr"]["rate"] == 0.5
    assert {k: v for k, v in results["meta"]["rates"].items() if k != "dopr"} == {
        k: v for k, v in old["meta"]["rates"].items() if k != "dopr"
    }
    assert results["meta"]["commits"]["dopr"] == "abc"
    # The same runs again are still those of their commit, and an arm with a fixed rate leaves the others' tuning as it was.
    fixed = {
        "rates": {"dopr": meta["rates"]["dopr"] | {"grid": [0.5]}},
        "commits": {"dopr": "later"},
        "tuning": "not tuned.",
    }
    same = script.merged(results, {"meta": old["meta"] | fixed, "runs": {"dopr": results["runs"]["dopr"]}})
    assert same["meta"]["commits"]["dopr"] == "abc"
    assert same["meta"]["tuning"] == old["meta"]["tuning"] != "not tuned."
    assert same["runs"] == results["runs"]


def test_the_page_has_all_arms_and_the_goal_of_large_batches(script: ModuleType, tmp_path: Path) -> None:
    old = stored()
    results = script.merged({}, {"meta": old["meta"] | {"commits": {}}, "runs": old["runs"]})
    results["meta"]["made"] = "Made for a test."
    script.write(results, "x")
    page = (tmp_path / "x.md").read_text()
    assert page.count("Made for a test.") == 1
    for name in old["runs"]:
        assert f"| {name} |" in page
    final = sum(sum(run["correct"]) / len(run["correct"]) for run in old["runs"][script.LARGE["sums"]]) / 3
    assert results["summary"]["targets"][-1] == pytest.approx(final - 0.01, abs=1e-4)
    assert (tmp_path / "x.svg").stat().st_size > 1000
    assert json.loads((tmp_path / "x.json").read_text())["runs"] == old["runs"]


@pytest.mark.parametrize("name", ["smollm2_sums", "smollm2_sums_large", "smollm2_multiples", "smollm2_multiples_large"])
def test_the_stored_pages_are_those_of_the_stored_results(script: ModuleType, tmp_path: Path, name: str) -> None:
    kept = ROOT / "docs" / "results"
    script.write(json.loads((kept / f"{name}.json").read_text()), name)
    for suffix in (".md", ".json"):
        assert (tmp_path / f"{name}{suffix}").read_text() == (kept / f"{name}{suffix}").read_text()


def test_new_tuning_is_taken_where_the_same_rates_win(script: ModuleType) -> None:
    results = stored()
    tuned = {"rates": {"dopr": results["meta"]["rates"]["dopr"] | {"tried": {"dopr": {"5e-06": 0.25, "1e-05": 0.5}}}}}
    script.take_tuning(results, tuned)
    assert results["meta"]["rates"]["dopr"]["tried"]["dopr"]["1e-05"] == 0.5
    assert len(results["meta"]["rates"]) == len(results["runs"])
    other = {"rates": {"dopr": tuned["rates"]["dopr"] | {"rate": 2e-6}}}
    with pytest.raises(SystemExit, match="2e-06 wins, its runs are at 5e-06"):
        script.take_tuning(results, other)
