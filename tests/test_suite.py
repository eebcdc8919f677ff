"""benchmarks/suite.py: what it stores, and its page's arithmetic, on curves made by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dopr.compare.arms import make_arms
from dopr.compare.results import RunResult
from dopr.tasks.worlds import WORLD_NAMES

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
LATENT = "latent-strategy"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import suite

    monkeypatch.setattr(suite, "STORE", tmp_path / "suite.json")
    yield suite
    for name in ("suite", "suite_page", "suite_numbers", "suite_files"):
        sys.modules.pop(name, None)


@pytest.fixture
def page(suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    import suite_files
    import suite_page

    monkeypatch.setattr(suite_page, "PAGE", tmp_path / "suite.md")
    monkeypatch.setattr(suite_files, "FIGURE", tmp_path / "suite.svg")
    (tmp_path / "baselines.json").write_text(json.dumps({"command": "old", "worlds": {"mixed": {"kept": True}}}))
    monkeypatch.setattr(suite_files, "BASELINES", tmp_path / "baselines.json")
    return suite_page


def curve(points: list[tuple[float, float]], seed: int) -> RunResult:
    """A run through (rollouts, accuracy); a token costs a seventh of a rollout, an update eight rollouts."""
    rows = [[at, 7 * at, at / 100, accuracy, 0.0, at / 8] for at, accuracy in points]
    correct = np.arange(100) < round(100 * points[-1][1])
    return RunResult(
        seed=seed,
        curve=np.array(rows),
        correct=correct.astype(float),
        informative=0.5,
        entropy=0.1,
        updates=9,
        select=0.01,
    )


def stored(suite: ModuleType, points: list[tuple[float, float]], chosen: str = "a") -> Any:
    return suite.Stored(
        arm=chosen, chosen=chosen, rate=1e-4, edge=False, tried={chosen: {"0.0001": 0.5}}, tuning_seeds=2, commit="abc",
        runs=[curve(points, seed) for seed in range(suite.SEEDS)],
    )  # fmt: skip


def world(suite: ModuleType) -> dict[str, Any]:
    """Every arm in a straight line from 20 %: 64 x 8 to 80 % at 16,000 rollouts, dopr to 90 % at 1,400, the others to 50 %."""
    arms = {arm.label: stored(suite, [(0, 0.2), (2500, 0.5)]) for arm in suite.ARMS}
    arms[suite.BATCH] = stored(suite, [(0, 0.2), (16000, 0.8)])
    arms[suite.TUNED] = stored(suite, [(0, 0.2), (6000, 0.8)], "uniform+prompts_per_round=8+budget=rollouts=6000")
    arms[suite.OURS] = stored(suite, [(0, 0.2), (1400, 0.9), (2500, 0.9)])
    return arms


def test_every_arm_can_be_run_on_every_world_and_has_three_rates(suite: ModuleType) -> None:
    for name in WORLD_NAMES:
        for arm in suite.ARMS:
            made, _ = make_arms(suite.settings_of(arm, name, Path("work")))
            assert {len(one.rates) for one in made} == {3}
            assert {one.family for one in made} == {arm.on(name)}
    assert suite.SEEDS >= 5
    for group in ("baseline", "ablation", "preset"):  # all that is compared is tuned with the same care
        assert len({arm.tuning_seeds for arm in suite.ARMS if arm.group == group}) == 1
    assert len({arm.label for arm in suite.ARMS}) == len(suite.ARMS)


def test_what_is_stored_comes_back_and_other_arms_stay(suite: ModuleType) -> None:
    arms = world(suite)
    suite.save({LATENT: arms})
    back = suite.load()
    assert list(back[LATENT]) == [arm.label for arm in suite.ARMS]
    for label, kept in arms.items():
        for run, same in zip(kept.runs, back[LATENT][label].runs, strict=True):
            assert run.as_dict() == same.as_dict()
        assert back[LATENT][label].tried == kept.tried
    assert suite.STORE.stat().st_size < 60_000


def test_costs_and_ratios_are_read_where_the_curves_cross_the_target(suite: ModuleType, page: ModuleType) -> None:
    arms = world(suite)
    target = page.target_of(arms)
    assert target == pytest.approx(0.79)
    assert page.spent(arms[suite.BATCH], target, "rollouts") == pytest.approx([16000 * 0.59 / 0.6] * 5)
    assert page.spent(arms[suite.OURS], target, "updates") == pytest.approx([1400 * 0.59 / 0.7 / 8] * 5)
    ratio = page.ratio_to(arms, suite.BATCH, suite.OURS, target)
    assert ratio.estimate == pytest.approx((16000 / 0.6) / (1400 / 0.7))
    assert not ratio.at_least
    by_clock = page.ratio_to(arms, suite.BATCH, suite.OURS, target, "seconds")
    assert by_clock.estimate == pytest.approx(ratio.estimate)
    one = page.ratio_to(arms, suite.ONE, suite.OURS, target)
    assert one.at_least
    assert one.estimate == pytest.approx(2500 / (2000 * 0.59))
    assert page.show_ratio(one).startswith("at least 2.1 [")
    assert page.show_ratio(page.ratio_to(arms, suite.BATCH, suite.ONE, target)) == "not reached"


def test_differences_are_taken_at_equal_rollouts_and_at_equal_tokens(suite: ModuleType, page: ModuleType) -> None:
    arms = world(suite)
    accuracy, difference = page.at_equal(arms, suite.OURS, "rollouts", 700)
    assert accuracy.estimate == pytest.approx(0.55)
    assert difference.estimate == pytest.approx(0.55 - (0.2 + 0.6 * 700 / 16000))
    _, by_tokens = page.at_equal(arms, suite.OURS, "tokens", 7 * 700)
    assert by_tokens.estimate == pytest.approx(difference.estimate)
    assert page.at_equal(arms, suite.BATCH, "rollouts", 700)[1] is None


def test_the_score_is_the_area_under_the_curve_between_base_and_best(suite: ModuleType, page: ModuleType) -> None:
    found = page.scores_of(world(suite), suite.BUDGETS[LATENT][0])
    upto = suite.BUDGETS[LATENT][0]
    best = (1400 * 0.55 + (upto - 1400) * 0.9) / upto - 0.2
    assert found[suite.OURS].mean() == pytest.approx(1)
    assert found[suite.ONE].mean() == pytest.approx(0.15 * upto / 2500 / best)
    assert found[suite.BATCH].mean() == pytest.approx(0.3 * upto / 16000 / best)


def test_the_floor_follows_the_skills_shares(page: ModuleType) -> None:
    floors = {name: page.floor_of(name, 0.5) for name in ("latent-strategy", "mostly-hopeless", "mostly-mastered")}
    assert floors["mostly-mastered"] == 0
    assert floors["mostly-hopeless"] > 5 * floors["latent-strategy"] > 0


def test_the_page_is_written_from_the_store_alone_and_baselines_of_other_worlds_stay(
    suite: ModuleType, page: ModuleType, tmp_path: Path
) -> None:
    suite.save({LATENT: world(suite)})
    page.write(suite.load())
    text = page.PAGE.read_text()
    assert "Not complete yet" in text
    assert "| latent-strategy | 79.0% | 1,180 [1,180, 1,180] | 13.3 [13.3, 13.3] |" in text
    assert "Batch size tuned: 8 prompts won" in text
    assert "| dopr | `dopr` | 1.00 [1.00, 1.00] |" in text
    tables: list[list[str]] = [[]]
    for line in text.splitlines():
        tables = [*tables[:-1], [*tables[-1], line]] if line.startswith("|") else [*tables, []]
    for rows in tables:
        assert len({row.replace("\\|", "").count("|") for row in rows}) <= 1
    baselines = json.loads((tmp_path / "baselines.json").read_text())
    assert baselines["worlds"]["mixed"] == {"kept": True}
    entry = baselines["worlds"][LATENT]
    assert entry["seeds"] == 5
    assert entry["target"] == pytest.approx(0.79)
    assert entry["rollouts"]["estimate"] == 16000
    assert 0 < entry["before"] < entry["target"] < entry["end"]["accuracy"]["estimate"] <= 1
    page.write({})
    assert "Nothing has been run yet" in page.PAGE.read_text()


def test_what_the_page_says_of_tuning_holds_for_the_stored_rows(suite: ModuleType) -> None:
    groups = {arm.label: arm.group for arm in suite.ARMS}
    for arms in suite.load().values():
        assert {label: kept.tuning_seeds for label, kept in arms.items()} == {
            label: 2 if groups[label] == "baseline" else 1 for label in arms
        }


@pytest.mark.slow
@pytest.mark.trl
def test_a_small_suite_runs_goes_on_where_it_stopped_and_refuses_other_sources(tmp_path: Path) -> None:
    """Two arms, one seed, 160 rollouts, 16 held-out problems; the second start finds everything done."""
    code = f"""
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {str(BENCHMARKS)!r})
import suite
suite.SEEDS = 1
suite.COMMON |= {{"seeds": 1, "evaluations": 2, "eval_problems": 16}}
suite.BUDGETS = {{name: (160, 160, 160, 80) for name in suite.BUDGETS}}
suite.STORE = Path("suite.json")
suite.ARMS = tuple(
    replace(arm, tuning_seeds=1, size=0, arm=arm.arm.replace("4|8|16|32", "2|4"))
    for arm in suite.ARMS if arm.label in (suite.OURS, suite.TUNED)
)
import suite_files, suite_page
suite_page.PAGE, suite_files.FIGURE, suite_files.BASELINES = Path("suite.md"), Path("suite.svg"), Path("baselines.json")
suite_files.BASELINES.write_text('{{"worlds": {{}}}}')
suite.source_hash, suite.commit = lambda: "changed" if "changed" in given else "as it was", lambda: "abc"
given, sys.argv = sys.argv, ["suite.py", "--world", "shared-skill", "--work", "work"]
suite.main()
"""

    def start(*arguments: str, code_: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == code_, done.stdout + done.stderr
        return done.stdout + done.stderr

    first = start()
    assert "9/9" in first
    kept = json.loads((tmp_path / "suite.json").read_text())["shared-skill"]
    assert set(kept) == {"dopr", "batch GRPO, batch size tuned"}
    tuned = kept["batch GRPO, batch size tuned"]
    assert set(tuned["tried"]) == {"uniform+prompts_per_round=2", "uniform+prompts_per_round=4"}
    assert tuned["chosen"] in tuned["tried"]
    for arm in kept.values():
        assert [len(run["correct"]) for run in arm["runs"]] == [16]
        assert arm["runs"][0]["curve"][-1][0] >= 160
    assert "## shared-skill" in (tmp_path / "suite.md").read_text()
    again = start()
    assert "lr0" not in again
    assert json.loads((tmp_path / "suite.json").read_text())["shared-skill"] == kept
    assert "holds runs of other sources of dopr" in start("changed", code_=1)
