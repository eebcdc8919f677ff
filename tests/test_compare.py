"""``dopr compare``: its arms, its arithmetic, and the whole of it through the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.compare.arms import final_jobs, make_arms, tuning_jobs
from dopr.compare.page import difference_of, difference_title, markdown, number
from dopr.compare.results import (
    RunResult,
    choose_rate,
    mean_over,
    read_result,
    spent_interval,
    summarise,
    targets_of,
    tuning_score,
    verdict,
)
from dopr.config import CompareSettings
from dopr.errors import ConfigError
from dopr.metrics import Interval
from dopr.selection import STRATEGIES


def settings(*strategies: str, **others: Any) -> CompareSettings:
    return CompareSettings(strategies=strategies, **others)


def run(accuracies: list[float], *, correct: list[float] | None = None, seed: int = 0, step: int = 100) -> RunResult:
    curve = [[i * step, i * step * 7, i * 1.5, a, a / 2, 3 * i] for i, a in enumerate(accuracies)]
    final = correct if correct is not None else [accuracies[-1]] * 50
    return RunResult(seed=seed, curve=np.array(curve), correct=np.array(final), informative=0.5, entropy=0.2, updates=9)


# -- arms ----------------------------------------------------------------------------------------------------------


def test_all_means_every_preset_once_and_arms_carry_their_own_settings() -> None:
    arms, left_out = make_arms(settings("all,uniform+prompts_per_round=64", "random-one+wrong_cap=32+replay=8", "dopr"))
    assert [a.name for a in arms] == [*STRATEGIES, "uniform+prompts_per_round=64", "random-one+wrong_cap=32+replay=8"]
    assert left_out == []
    wide = arms[-2]
    assert wide.settings == {"strategy": "uniform", "prompts_per_round": 64}
    option = make_arms(settings("dopr+option.volatility=within+replay=0"))[0][0]
    assert option.settings == {"strategy": "dopr", "replay": 0, "option": {"volatility": "within"}}


def test_every_arm_gets_a_grid_of_equal_size_centred_by_its_batch() -> None:
    arms, _ = make_arms(settings("dopr,uniform,uniform+prompts_per_round=64,hard-easy"))
    assert [a.rates for a in arms] == [
        (5e-5, 1e-4, 2e-4), (1.4e-4, 2.8e-4, 5.7e-4), (4e-4, 8e-4, 1.6e-3), (7.1e-5, 1.4e-4, 2.8e-4),
    ]  # fmt: skip
    given, _ = make_arms(settings("dopr,dopr+learning_rate=3e-4", learning_rates=(1e-3, 1e-4)))
    assert [a.rates for a in given] == [(1e-4, 1e-3), (3e-4,)]
    with pytest.raises(ConfigError, match="learning rates to try on some/model are not known"):
        make_arms(settings("dopr", model="some/model"))


def test_alternatives_are_tuned_against_each_other_and_reported_under_one_name() -> None:
    s = settings("dopr,uniform+prompts_per_round=4|16,uniform+prompts_per_round=16", tuning_seeds=1)
    arms, _ = make_arms(s)
    assert [(a.name, a.family) for a in arms] == [
        ("dopr", "dopr"), ("uniform+prompts_per_round=4", "uniform+prompts_per_round=4|16"),
        ("uniform+prompts_per_round=16", "uniform+prompts_per_round=4|16"),
        ("uniform+prompts_per_round=16", "uniform+prompts_per_round=16"),
    ]  # fmt: skip
    jobs = tuning_jobs(arms, s)
    assert len(jobs) == len({j.slug for j in jobs}) == 3 * 3  # an arm of two families is run once
    fixed = settings("uniform+learning_rate=1e-4+replay=0|8")
    assert len(tuning_jobs(make_arms(fixed)[0], fixed)) == 2
    with pytest.raises(ConfigError, match=r"Alternatives such as 4\|8"):
        make_arms(settings("uniform+prompts_per_round=4|8", tuning_seeds=0))
    with pytest.raises(ConfigError, match="Setting 'replay' is 'x'"):
        make_arms(settings("dopr+replay=1|x"))


def test_an_arm_may_have_a_budget_of_its_own() -> None:
    s = settings("dopr,uniform+budget=rollouts=16000", budget="rollouts=2500")
    arms, _ = make_arms(s)
    jobs = final_jobs(arms, {a.name: 1e-4 for a in arms}, s)
    assert {j.arm: j.settings.budget for j in jobs} == {
        "dopr": "rollouts=2500",
        "uniform+budget=rollouts=16000": "rollouts=16000",
    }
    with pytest.raises(ConfigError, match="not of the form UNIT=NUMBER"):
        make_arms(settings("uniform+budget=16000"))


def test_with_unequal_budgets_differences_are_those_at_equal_rollouts_and_tokens() -> None:
    short = [run([0.2, 0.6], seed=i) for i in range(2)]  # ends after 100 rollouts, 700 tokens
    long = [run([0.2, 0.4, 0.8], seed=i) for i in range(2)]
    summary = summarise({"short": short, "long": long}, reference="long", targets=(0.5,), unequal=True)
    assert summary["equal"] == {"rollouts": 100, "tokens": 700}
    row = summary["arms"]["short"]
    assert row["difference"]["estimate"] == pytest.approx(-0.2)
    for column in ("rollouts", "tokens"):
        assert row["equal"][column]["accuracy"]["estimate"] == pytest.approx(0.6)
        assert row["equal"][column]["difference"]["estimate"] == pytest.approx(0.2)
        assert row["equal"][column]["verdict"] == "better"
    rates = {name: {"rate": 1e-4, "edge": False, "grid": [1e-4]} for name in ("short", "long")}
    meta = {"command": "c", "budget": "b", "data": "d", "model": "m", "rates": rates, "tuning": "t"}
    page = markdown(summary, meta, None)
    assert "| short | 60.0% [60.0, 60.0] | +20.0% [+20.0, +20.0] | better |" in page
    assert "difference to long at 100 rollouts" in page


def test_a_batch_that_overshoots_a_small_budget_is_not_compared_at_its_end() -> None:
    """One batch of 512 where 300 rollouts were asked for: at 300 the others are ahead, at the ends it is."""
    one = [run([0.2, 0.4, 0.5, 0.6], seed=i) for i in range(2)]
    batch = [run([0.2, 0.7], seed=i, step=512) for i in range(2)]
    summary = summarise({"one": one, "batch": batch}, reference="one", targets=(0.5,))
    assert summary["unequal"]
    at_end, at_equal = (difference["estimate"] for difference in (
        summary["arms"]["batch"]["difference"], summary["arms"]["batch"]["equal"]["rollouts"]["difference"]
    ))  # fmt: skip
    assert at_end == pytest.approx(0.1)
    assert at_equal == pytest.approx(0.2 + 0.5 * 300 / 512 - 0.6)
    as_long = [replace(r, curve=r.curve * [1, 1, 3, 1, 1, 1]) for r in batch]  # that both took as long is chance
    assert as_long[0].end("seconds") == one[0].end("seconds")
    assert summarise({"one": one, "batch": as_long}, reference="one", targets=(0.5,))["unequal"]


@pytest.mark.parametrize(("unit", "scale"), [("rollouts", [1, 3, 2, 1, 1, 2]), ("tokens", [3, 1, 2, 1, 1, 2]),
                                             ("seconds", [3, 3, 1, 1, 1, 2]), ("updates", [3, 3, 2, 1, 1, 1])])  # fmt: skip
def test_ends_are_compared_where_the_budget_was_spent(unit: str, scale: list[float]) -> None:
    one = [run([0.2, 0.4, 0.5, 0.6], seed=i) for i in range(2)]
    other = [replace(r, curve=r.curve * scale) for r in one]
    assert not summarise({"one": one, "other": other}, reference="one", targets=(0.5,), unit=unit)["unequal"]
    over = [replace(r, curve=r.curve * scale * np.array([1.1] * 3 + [1, 1, 1.1])) for r in one]
    summary = summarise({"one": one, "over": over}, reference="one", targets=(0.5,), unit=unit)
    assert summary["unequal"]
    difference, _ = difference_of(summary, "over")
    assert summary["equal"][unit] == one[0].end(unit)
    assert difference["estimate"] == pytest.approx(over[0].accuracy_at(unit, one[0].end(unit)) - 0.6)
    assert f" {unit}" in difference_title(summary)


def test_a_run_that_stopped_does_not_end_the_comparison() -> None:
    """One seed of five had nothing more to learn from and stopped at a tenth of the budget: it stays where it was."""
    whole = [run([0.2, *[0.4] * 9, 0.6], seed=i) for i in range(5)]
    stopped = [*[run([0.2, *[0.5] * 9, 0.7], seed=i) for i in range(4)], run([0.2, 0.3], seed=4)]
    summary = summarise({"whole": whole, "stopped": stopped}, reference="whole", targets=(0.5,))
    assert not summary["unequal"]
    assert summary["equal"]["rollouts"] == 1000
    assert summary["arms"]["stopped"]["equal"]["rollouts"]["difference"]["estimate"] == pytest.approx(
        (4 * 0.1 - 0.3) / 5
    )


@pytest.mark.slow
@pytest.mark.trl
def test_tuning_is_also_scored_over_the_least_budget_where_budgets_differ(tmp_path: Path) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "out"
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = command(
        "--data", str(data), "--model", "tiny", "--strategies", "random-one,random-one+budget=rollouts=48", "--seeds", "1",
        "--budget", "rollouts=16", "--evaluations", "2", "--learning-rates", "1e-4", "--learning-rates", "2e-4", "--tuning-seeds", "1",
        "--eval-problems", "8", "--jobs", "2", "--output", str(out),
    )  # fmt: skip
    done = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    rates = json.loads((out / "results.json").read_text())["meta"]["rates"]
    for arm, own in (("random-one", 16), ("random-one+budget=rollouts=48", 48)):
        name = re.sub("[^A-Za-z0-9.]+", "-", arm)
        for rate in ("0.0001", "0.0002"):
            result = read_result(out / "runs" / f"{name}--lr{rate}--seed1000", 1000)
            assert result.end("rollouts") == own
            assert rates[arm]["tried"][arm][rate] == pytest.approx(result.mean_accuracy(), abs=1e-4)
            assert rates[arm]["at_least"]["rollouts"] == 16
            assert rates[arm]["at_least"]["tried"][arm][rate] == pytest.approx(result.mean_accuracy(16), abs=1e-4)


def test_no_reported_seed_is_tuned_on_and_every_arm_gets_the_same_seeds() -> None:
    s = settings("dopr,uniform", seeds=4, tuning_seeds=2, budget="rollouts=100")
    arms, _ = make_arms(s)
    tuning, final = tuning_jobs(arms, s), final_jobs(arms, {a.name: a.rates[0] for a in arms}, s)
    assert len(tuning) == 2 * 3 * 2
    assert {j.seed for j in tuning}.isdisjoint(j.seed for j in final)
    assert {(j.arm, j.seed) for j in final} == {(a, i) for a in ("dopr", "uniform") for i in range(4)}
    jobs = [*tuning, *final]
    assert len({j.slug for j in jobs}) == len(jobs)
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", j.slug) for j in jobs)
    assert all(j.settings.budget == "rollouts=100" and j.settings.learning_rate == j.rate for j in jobs)
    assert {j.settings.evaluations for j in jobs} == {20}


def test_what_the_problems_lack_is_left_out_of_all_and_refused_by_name() -> None:
    arms, left_out = make_arms(settings("all"), lacking={"category", "difficulty"})
    assert left_out == ["sec", "dump", "adarft"]
    assert len(arms) == len(STRATEGIES) - 3
    with pytest.raises(ConfigError, match="'sec' needs a category"):
        make_arms(settings("dopr,sec"), lacking={"category"})


@pytest.mark.parametrize(
    ("strategies", "message"),
    [
        (("dorp",), "Did you mean 'dopr'"),
        (("dopr+replays=1",), "Unknown setting 'replays'"),
        (("dopr+replay",), "not of the form NAME=VALUE"),
        (("dopr+option.volatilty=within",), "no option 'volatilty'"),
        (("dopr+replay=x",), "Setting 'replay' is 'x'"),
        ((" , ",), "No strategy to compare"),
        (("dopr+replay=1", "dopr-replay=1"), "Unknown strategy|alike but for punctuation"),
        (("dopr+learning_rate=abc",), "learning_rate"),
    ],
)
def test_arms_that_cannot_be_are_refused(strategies: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_arms(settings(*strategies))


@pytest.mark.parametrize(
    "wrong",
    [
        {"seeds": 0},
        {"tuning_seeds": -1},
        {"jobs": 0},
        {"learning_rates": (0.0,)},
        {"targets": (1.5,)},
        {"eval_problems": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        settings("dopr", **wrong)


# -- arithmetic ----------------------------------------------------------------------------------------------------


def test_costs_are_read_at_the_first_evaluation_that_gets_there() -> None:
    r = run([0.2, 0.5, 0.45, 0.7])
    assert (r.spent_at(0.5, "rollouts"), r.spent_at(0.6, "tokens"), r.spent_at(0.71, "seconds")) == (
        100,
        2100,
        float("inf"),
    )
    assert r.interpolated_spent(0.35, "rollouts") == pytest.approx(50)
    assert r.interpolated_spent(0.6, "tokens") == pytest.approx(1400 + 700 * 0.15 / 0.25)
    assert (r.interpolated_spent(0.1, "rollouts"), r.interpolated_spent(0.71, "seconds")) == (0, float("inf"))
    assert r.accuracy_at("tokens", 1050) == pytest.approx(0.475)
    assert [r.accuracy_at("tokens", spent) for spent in (0, 1e9)] == [0.2, 0.7]
    assert r.mean_accuracy() == pytest.approx((0.35 + 0.475 + 0.575) / 3)
    assert r.mean_accuracy(150) == pytest.approx((0.35 * 100 + 0.4875 * 50) / 150)
    assert r.mean_accuracy(0) == 0.2
    assert r.mean_accuracy(600) == pytest.approx((140 + 3 * 70) / 600)  # where a run ended it stays
    back = RunResult.from_dict(json.loads(json.dumps(r.as_dict())))
    assert back.as_dict() == r.as_dict()
    assert spent_interval([100.0, 300.0, float("inf")]) == {"estimate": 300, "low": 100, "high": None}
    assert spent_interval([100.0, float("inf"), float("inf")]) is None
    assert number(None) == "not reached"
    assert number({"estimate": 300.0, "low": 100.0, "high": None}) == "300 [100, never]"


def test_the_interval_covers_the_mean_over_seeds_and_problems() -> None:
    """Seeds differ by a normal effect, problems by a coin. The interval errs on the wide side, but not by much."""
    rng, hits, widths, trials = np.random.default_rng(0), 0, [], 200
    for trial in range(trials):
        seeds = 0.5 + 0.05 * rng.standard_normal(10)
        interval = mean_over([(rng.random(60) < p).astype(float) for p in seeds], seed=trial)
        hits += interval.low <= 0.5 <= interval.high
        widths.append(interval.high - interval.low)
    exact = 2 * 1.96 * np.sqrt((0.05**2 + 0.25 / 60) / 10)
    assert hits / trials >= 0.93
    assert exact <= np.mean(widths) <= 1.5 * exact


def test_a_difference_is_paired_by_seed() -> None:
    rng = np.random.default_rng(1)
    easy = [(rng.random(100) < p).astype(float) for p in (0.2, 0.5, 0.8)]  # seeds differ wildly
    better = [e.copy() for e in easy]
    for right, more in zip(better, (10, 12, 14), strict=True):
        right[np.flatnonzero(right == 0)[:more]] = 1
    arms = {
        "a": [run([0.1, 0.2], correct=e.tolist()) for e in easy],
        "b": [run([0.1, 0.2], correct=b.tolist()) for b in better],
        "c": [run([0.1, 0.2], correct=e.tolist()) for e in easy],
    }
    summary = summarise(arms, reference="a", targets=(0.15,))
    assert summary["arms"]["b"]["verdict"] == "better"
    assert summary["arms"]["c"]["verdict"] == "no difference shown"
    assert summary["arms"]["a"]["verdict"] == "reference"
    assert summary["arms"]["b"]["difference"]["estimate"] == pytest.approx(np.mean(better) - np.mean(easy))
    wide = summary["arms"]["b"]["final"]
    assert wide["high"] - wide["low"] > 0.2 > summary["arms"]["b"]["difference"]["high"]


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_arms_that_are_alike_are_seldom_told_apart(seeds: int) -> None:
    """Runs of one arm differ by six points, as they do; one in twenty verdicts may be wrong."""
    rng, wrong, trials = np.random.default_rng(seeds), 0, 200

    def runs() -> list[RunResult]:
        rates = 0.6 + 0.06 * rng.standard_normal(seeds)
        return [run([0.1, p], correct=(rng.random(256) < p).astype(float).tolist()) for p in rates]

    for _ in range(trials):
        arms = {"a": runs(), "b": runs()}
        wrong += summarise(arms, reference="a", targets=(0.15,))["arms"]["b"]["verdict"] != "no difference shown"
    assert wrong <= 0.09 * trials


@pytest.mark.parametrize(
    ("interval", "text"),
    [((0.1, 0.05, 0.2), "better"), ((-0.1, -0.2, -0.05), "worse"), ((0.1, -0.01, 0.2), "no difference shown"),
     ((0.0, 0.0, 0.0), "no difference shown")],
)  # fmt: skip
def test_a_verdict_needs_an_interval_away_from_zero(interval: tuple[float, float, float], text: str) -> None:
    assert verdict(Interval(*interval)) == text


def test_targets_lie_between_the_base_and_where_the_reference_ends() -> None:
    good, flat = [run([0.2, 0.4, 0.6])], [run([0.2, 0.2, 0.21])]
    assert targets_of(good, {"g": good}) == [0.4, 0.56]
    assert targets_of(flat, {"f": flat, "g": good}) == [0.4, 0.56]  # a reference that learned nothing sets no target


def test_the_rate_with_the_best_run_wins_and_an_edge_is_told() -> None:
    runs = {1e-4: [run([0.2, 0.3])], 2e-4: [run([0.2, 0.6])], 4e-4: [run([0.2, 0.4])]}
    assert choose_rate(runs, 100, "rollouts") == (2e-4, False)
    assert choose_rate({r: v for r, v in runs.items() if r < 4e-4}, 100, "rollouts") == (2e-4, True)
    assert choose_rate({2e-4: runs[2e-4]}, 100, "rollouts") == (2e-4, False)


def test_a_run_that_stopped_is_tuned_over_as_many_rollouts_as_the_others() -> None:
    stuck, slow = [run([0.2, 0.5])], [run([0.2, 0.3, 0.6, 0.9, 0.9])]
    assert stuck[0].mean_accuracy() == pytest.approx(0.35)
    assert slow[0].mean_accuracy() == pytest.approx(0.5875)
    soon, late = [run([0.2, 0.9])], [run([0.2, 0.3, 0.6, 0.9])]  # both stopped at a target of .9
    assert choose_rate({1e-4: stuck, 2e-4: slow}, 400, "rollouts") == (2e-4, True)
    assert choose_rate({1e-4: soon, 2e-4: late}, 300, "rollouts") == (1e-4, True)
    assert late[0].mean_accuracy() < tuning_score(soon, 300, "rollouts") == pytest.approx((0.55 + 0.9 + 0.9) / 3)


def test_tuning_counts_in_the_budgets_unit() -> None:
    """Both spend the same tokens; one in half as many rollouts, which is not to its credit."""
    quick = [run([0.2, 0.425, 0.65], step=500)]
    wordy = [replace(run([0.2, 0.4, 0.6], step=250), curve=run([0.2, 0.4, 0.6], step=500).curve * [0.5, 1, 1, 1, 1, 1])]
    assert quick[0].end("tokens") == wordy[0].end("tokens") == 2 * wordy[0].end("rollouts") * 7
    assert choose_rate({1e-4: quick, 2e-4: wordy}, quick[0].end("tokens"), "tokens") == (1e-4, True)
    assert choose_rate({1e-4: quick, 2e-4: wordy}, 1000, "rollouts") == (2e-4, True)


def test_the_page_says_no_difference_where_none_is_shown() -> None:
    arms = {"a": [run([0.2, 0.5])] * 2, "b": [run([0.2, 0.5])] * 2}
    rates = {name: {"rate": 1e-4, "edge": name == "b", "grid": [1e-4]} for name in arms}
    meta = {"command": "dopr compare", "budget": "rollouts=100", "data": "d", "model": "m", "rates": rates, "tuning": "t",
            "left_out": ["sec"]}  # fmt: skip
    page = markdown(summarise(arms, reference="a"), meta, None)
    assert "no difference shown" in page
    assert "0.0001 (edge)" in page
    assert "Left out, for lack of category or difficulty: sec." in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_greedy_decoding_stands_on_the_page_with_its_gain() -> None:
    def decoded(before: str, after: str) -> RunResult:
        one = replace(run([0.2, 0.5]), greedy=np.array([[d == "1" for d in row] for row in (before, after)]))
        again = RunResult.from_dict(one.as_dict())
        assert again.greedy is not None
        assert one.as_dict()["greedy"] == [before, after] == again.as_dict()["greedy"]
        return again

    arms = {"a": [decoded("1000", "1110"), decoded("1100", "1111")], "b": [run([0.2, 0.5])] * 2}
    summary = summarise(arms, reference="b")
    assert summary["arms"]["a"]["greedy"]["after"]["estimate"] == 0.875
    assert summary["arms"]["a"]["greedy"]["gain"] == {"estimate": 0.5, "low": 0.5, "high": 0.5}
    assert summary["arms"]["b"]["greedy"] is None  # of an older run, or evaluated greedily anyway
    meta = {"command": "c", "budget": "b", "data": "d", "model": "m", "tuning": "t",
            "rates": {name: {"rate": 1e-4, "edge": False, "grid": [1e-4]} for name in arms}}  # fmt: skip
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in markdown(summary, meta, None).splitlines()
        if line.startswith("|")
    ]
    assert len({len(row) for row in rows}) == 1
    cells = {row[0]: row[rows[0].index("greedy decoding (its gain)")] for row in rows[2:]}
    assert cells == {"a": "87.5% (+50.0% [+50.0, +50.0])", "b": ""}
    assert "greedy" not in markdown(summarise({"b": arms["b"]}, reference="b"), meta, None)


# -- the command ---------------------------------------------------------------------------------------------------

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dopr", "compare", *arguments]


@pytest.mark.slow
@pytest.mark.trl
def test_a_stopped_comparison_goes_on_and_ends_with_table_page_and_figure(tmp_path: Path) -> None:
    arguments = command(
        "--world", "latent-strategy", "--strategies", "dopr,uniform+prompts_per_round=2", "--seeds", "3",
        "--budget", "rollouts=300", "--learning-rates", "1e-4", "--evaluations", "2", "--eval-problems", "32", "--jobs", "2",
        "--output", str(tmp_path / "out"),
    )  # fmt: skip
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    runs = tmp_path / "out" / "runs"
    deadline = time.monotonic() + 180
    while not list(runs.glob("*--seed?/summary.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    finished = {p.parent.name: p.read_bytes() for p in runs.glob("*--seed?/summary.json")}
    assert 1 <= len(finished) < 6
    assert "Traceback" not in errors
    assert process.returncode == 130

    done = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, before in finished.items():
        assert (runs / name / "summary.json").read_bytes() == before  # kept, not run again
    names = sorted(p.name for p in runs.iterdir())
    assert len(names) == 6
    assert not [n for n in names if n.endswith((".part", ".log"))]
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(stored["summary"]["arms"]) == {"dopr", "uniform+prompts_per_round=2"}
    for name, results in stored["runs"].items():
        for result in results:
            directory = next(runs.glob(f"{re.sub('[^A-Za-z0-9.]+', '-', name)}--*--seed{result['seed']}"))
            assert read_result(directory, result["seed"]).as_dict() == result
            assert result["curve"][-1][0] >= 300
            assert len(result["correct"]) == 32
            assert [len(row) for row in result["greedy"]] == [32, 32]
            assert not (directory / "checkpoints").exists()
    assert (tmp_path / "out" / "accuracy.svg").read_text().count("<svg") == 1
    assert "| dopr |" in (tmp_path / "out" / "results.md").read_text()

    other = subprocess.run(
        [*arguments, "--group-size", "4"], capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=100
    )
    assert other.returncode == 2
    assert "group_size" in other.stderr
    assert "comparison with other settings" in " ".join(other.stderr.split())


@pytest.mark.slow
@pytest.mark.trl
def test_runs_on_different_problems_are_not_compared(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"

    def compared(first: int, strategies: str) -> subprocess.CompletedProcess[str]:
        rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(first, first + 40)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        arguments = command(
            "--data", str(data), "--model", "tiny", "--strategies", strategies, "--seeds", "1", "--budget", "rollouts=16",
            "--learning-rates", "1e-4", "--eval-problems", "8", "--output", str(tmp_path / "out"),
        )  # fmt: skip
        return subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=200)

    before = compared(0, "random-one")
    assert before.returncode == 0, before.stderr
    page = (tmp_path / "out" / "results.md").read_bytes()
    after = compared(40, "random-one,mopps")
    assert after.returncode == 2
    assert "were evaluated on different problems" in " ".join(after.stderr.split())
    assert "Traceback" not in after.stderr
    assert (tmp_path / "out" / "results.md").read_bytes() == page
    # The same problems held out, another one to train on; noticed before anything is run.
    config = next((tmp_path / "out" / "runs").glob("random-one*/config.json"))
    config.write_text(config.read_text().replace('"data_fingerprint": "', '"data_fingerprint": "x'))
    shutil.copytree(
        config.parent, config.parent.with_name(config.parent.name.replace("random-one", "mopps")), dirs_exist_ok=True
    )
    mine = config.parent / "config.json"
    mine.write_text(mine.read_text().replace('"data_fingerprint": "x', '"data_fingerprint": "'))
    both = compared(0, "random-one,mopps,uniform")
    assert both.returncode == 2
    assert "were trained on different problems" in " ".join(both.stderr.split())
    assert not list((tmp_path / "out" / "runs").glob("uniform*"))


@pytest.mark.slow
@pytest.mark.trl
def test_ctrl_c_while_the_libraries_are_loaded_ends_in_one_line(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    arguments = command(
        "--world", "latent-strategy", "--strategies", "dopr", "--seeds", "2", "--budget", "rollouts=300",
        "--learning-rates", "1e-4", "--output", str(tmp_path / "out"),
    )  # fmt: skip
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )

    def server() -> bool:
        children = psutil.Process(process.pid).children()
        return any("forkserver" in argument for child in children for argument in child.cmdline())

    deadline = time.monotonic() + 60
    while not server() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.5)  # it has begun to import
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.split("\n", 1)[-1].strip() == "dopr: interrupted."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategies", "dorp"], "Did you mean 'dopr'"),
        (["--world", "latent"], "no packaged world"),
        (["--reference", "kimi"], "none of the arms"),
        (["--budget", "3000"], "not of the form UNIT=NUMBER"),
        (["--seeds", "0"], "at least 1"),
        (["--output", "/proc/none"], "/proc/none"),
        (["--seed", "998", "--seeds", "3"], "Seeds 998 to 1000 would be reported"),
        (["--world", "mixed", "--data", "problems.jsonl"], "Both data (problems.jsonl) and world (mixed)"),
        (["--world", "mixed", "--answer-column", "gold"], "answer_column would have no effect"),
    ],
)
def test_wrong_use_is_refused_in_one_paragraph(arguments: list[str], message: str) -> None:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("strategy: dapo", "--strategies"),
        ("learning_rate: 1e-5", "--learning-rates"),
        ("option: {volatility: within}", "dopr+option.volatility=within"),
        ("target: 0.9", "--targets"),
        ("save_every: 5", "complete ones are kept"),
    ],
)
def test_what_a_file_says_of_a_single_run_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(line + "\n")
    arguments = command("--config", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "out"))
    done = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert line.partition(":")[0] in told
    assert "would have no effect here" in told
    assert message in told
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.trl
def test_a_killed_comparison_leaves_no_runs_behind(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    arguments = command(
        "--world", "latent-strategy", "--strategies", "uniform", "--seeds", "2", "--tuning-seeds", "0", "--budget", "rollouts=1000000",
        "--learning-rates", "1e-4", "--eval-problems", "32", "--jobs", "2", "--output", str(tmp_path / "out"),
    )  # fmt: skip
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    events = tmp_path / "out" / "runs"
    deadline = time.monotonic() + 180
    while len(list(events.glob("*.part/events.jsonl"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    left = psutil.Process(process.pid).children(recursive=True)
    assert len(left) >= 3  # the server and two runs
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(left, timeout=60)
    for orphan in alive:
        orphan.kill()
    assert not alive
