"""Traces and replays, against brute force, and replay and rank through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dopr.errors import RunError
from dopr.rank import rank
from dopr.replay import metadata_of_trace, mixed_share, replay, replay_row
from dopr.selection import STRATEGIES
from dopr.tasks.problems import load_problems
from dopr.trace import Trace, Visit, read_trace
from trace_kit import dopr, published, run_dir

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "accuracy_trace_dsr_sub.json"


def flat_trace(rates: dict[str, float], visits: int = 10) -> Trace:
    return Trace(
        source="made", group_size=8, categories={},
        visits={i: [Visit(when=(v + 0.5) / visits, rate=r) for v in range(visits)] for i, r in rates.items()},
    )  # fmt: skip


# -- traces --------------------------------------------------------------------------------------------------------


def test_a_published_trace_is_read_with_its_group_size(tmp_path: Path) -> None:
    trace = read_trace(published(tmp_path, {"7": [0.0, 0.25, 1.0], "9": [0.75], "3": []}))
    assert trace.ids == ["7", "9"]
    assert trace.group_size == 4
    assert [v.when for v in trace.visits["7"]] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert trace.rates(6).T.tolist() == [[0, 0, 0.25, 0.25, 1, 1], [0.75] * 6]
    assert trace.fits
    odd = read_trace(published(tmp_path, {"a": [1 / 3, 0.01, 0.99, 0.0, 1.0]}))
    assert (odd.group_size, odd.fits) == (8, False)  # nothing explains it
    right, sizes = odd.groups(5)
    assert right.ravel().tolist() == [3, 1, 7, 0, 8]  # what was mixed stays mixed
    assert set(sizes.ravel().tolist()) == {8}


def test_a_run_is_a_trace_of_its_picks(tmp_path: Path) -> None:
    rounds: Any = [
        [("a", [1.0, 0.0], 1.0), ("b", [None, None], None)],
        [("a", [1.0, 1.0], 0.0)],
        [("c", [0.0, None], 0.0)],
        [("a", [0.0, 0.0, 1.0, 1.0], 0.5)],
    ]
    trace = read_trace(run_dir(tmp_path, rounds))
    assert {i: [(v.when, v.rate, v.rollouts) for v in visits] for i, visits in trace.visits.items()} == {
        "a": [(0.125, 0.5, 2), (0.375, 1.0, 2), (0.875, 0.5, 4)],
        "c": [(0.625, 0.0, 1)],
    }
    assert trace.group_size == 2
    right, sizes = trace.groups(4)
    assert (right[:, 0].tolist(), sizes[:, 0].tolist()) == ([1, 2, 2, 2], [2, 2, 2, 4])
    assert (right[:, 1].tolist(), sizes[:, 1].tolist()) == ([0] * 4, [1] * 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "must be a JSON object"),
        ("{}", "not be empty"),
        ('{"a": 3}', "prompt 'a'.* list of accuracies"),
        ('{"a": [0.5, 1.5]}', "between 0 and 1"),
        ('{"a": [null]}', "between 0 and 1"),
        ('{"a": [NaN]}', "between 0 and 1"),
        ('{"a": [true]}', "between 0 and 1"),
        ('{"a": []}', "no visit of any"),
        ('{"b": [0.5], "a\\ud800": [0.5]}', r"prompt 'a\\ud800': the id holds half of a surrogate pair"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_what_is_no_trace_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(RunError, match=message):
        read_trace(path)


def test_a_missing_or_empty_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no"):
        read_trace(tmp_path / "nothing.json")
    with pytest.raises(RunError, match=r"holds no events\.jsonl"):
        read_trace(tmp_path)
    with pytest.raises(RunError, match="no scored group yet"):
        read_trace(run_dir(tmp_path, [[("a", [None], None)]]))


# -- replay --------------------------------------------------------------------------------------------------------


def test_a_replay_counts_what_it_spends_and_finds_what_was_recorded() -> None:
    trace = flat_trace(
        {f"w{i}": 0.0 for i in range(30)} | {f"m{i}": 0.5 for i in range(30)} | {f"r{i}": 1.0 for i in range(40)}
    )
    run = replay(trace, "random-one", rollouts=4000, candidates=20)
    assert run.rollouts == 4000 == 8 * run.groups
    assert run.mixed + run.all_wrong + run.all_right == run.groups
    assert run.informative == pytest.approx(0.3, abs=0.07)
    assert run.all_right / run.groups == pytest.approx(0.4, abs=0.07)
    assert run.coverage > 0.95
    assert np.isnan(run.brier)
    again = replay(trace, "random-one", rollouts=4000, candidates=20)
    assert (again.mixed, again.coverage) == (run.mixed, run.coverage)


def test_a_strategy_that_learns_where_the_mixed_groups_are_is_told_from_chance() -> None:
    trace = flat_trace({f"w{i}": 0.0 for i in range(70)} | {f"m{i}": 0.5 for i in range(30)})
    control = [replay(trace, "random-one", seed=s) for s in range(4)]
    row = replay_row("learnability", [replay(trace, "learnability", seed=s) for s in range(4)], control)
    assert row.gain.low > 2
    assert row.informative > 0.8
    assert row.brier is not None
    assert row.brier_pooled is not None
    assert row.brier < row.brier_pooled
    assert row.calibration_error is not None
    assert row.calibration_error < 0.1
    assert replay_row("random-one", control, control).gain.estimate == 1


def test_dropped_groups_count_and_further_rollouts_of_a_constant_group_may_succeed() -> None:
    trace = flat_trace({f"w{i}": 0.0 for i in range(50)} | {f"m{i}": 0.5 for i in range(50)})
    dapo = replay(trace, "dapo", rollouts=2000)
    assert dapo.informative == pytest.approx(0.5, abs=0.1)
    assert dapo.rollouts == 8 * dapo.groups
    # reinforce-ada asks up to 32 rollouts of a recorded 0/8: some succeed at rate 1/18, none of the first eight can.
    ada = replay(flat_trace({f"w{i}": 0.0 for i in range(50)}), "reinforce-ada", rollouts=6000)
    expected = 1 - (17 / 18) ** 24 - 24 * (1 / 18) * (17 / 18) ** 23
    assert ada.groups > 150
    assert ada.mixed / ada.groups >= expected - 0.12


def test_a_recorded_group_is_replayed_at_its_own_size(tmp_path: Path) -> None:
    """One success in four, recorded by a run whose usual group has two rollouts: rounded to two it would always fail."""
    rounds: Any = [[("a", [0.0, 0.0, 0.0, 1.0], None)], [("b", [0.0, 1.0], None)], [("c", [0.0, 0.0], None)]]
    trace = read_trace(run_dir(tmp_path, rounds))
    assert trace.group_size == 2
    whole = replay(trace, "random-one", rollouts=3000, group_size=4)
    assert mixed_share(trace, 4)[0].tolist() == pytest.approx([1, 1, 1 - (5 / 6) ** 2 - 0])
    assert whole.informative == pytest.approx((2 + 1 - (5 / 6) ** 2) / 3, abs=0.06)
    assert mixed_share(trace, 2)[0].tolist() == pytest.approx([0.5, 1, 0])
    assert replay(trace, "random-one", rollouts=3000).informative == pytest.approx(0.5, abs=0.05)


def test_the_share_of_mixed_groups_is_that_of_the_draws() -> None:
    rng = np.random.default_rng(0)
    trace = Trace(
        source="made", group_size=8, categories={},
        visits={f"p{k}": [Visit(when=0.5, rate=k / 6, rollouts=6)] for k in range(7)},
    )  # fmt: skip
    for size in (2, 4, 6, 9):
        expected = mixed_share(trace, size)[0]
        for k in range(7):
            groups = np.tile(np.arange(6) < k, (20_000, 1))
            drawn = rng.permuted(groups, axis=1)[:, :size]
            drawn = np.hstack([drawn, rng.random((20_000, max(0, size - 6))) < (k + 0.5) / 7])
            assert abs((drawn.any(axis=1) & ~drawn.all(axis=1)).mean() - expected[k]) < 0.015


def test_intervals_over_few_seeds_are_wide_and_one_seed_has_none() -> None:
    trace = flat_trace({f"w{i}": 0.0 for i in range(30)} | {f"m{i}": 0.5 for i in range(30)})
    runs = [replay(trace, "random-one", seed=s, rollouts=400) for s in range(6)]
    three = replay_row("x", runs[:3], runs[3:])
    ratios = [a.per_hundred / b.per_hundred for a, b in zip(runs[:3], runs[3:], strict=True)]
    half = stats.t.ppf(0.975, 2) * np.std(ratios, ddof=1) / np.sqrt(3)
    assert three.gain.high == pytest.approx(np.mean(ratios) + half, rel=1e-4)
    assert three.gain.low == pytest.approx(max(0, np.mean(ratios) - half), rel=1e-4)
    one = replay_row("x", runs[:1], runs[3:4])
    assert (one.gain.low, one.gain.high) == (0, np.inf)
    assert (one.per_hundred.low, one.per_hundred.high) == (0, 50)


def test_difficulty_and_categories_come_from_the_first_visit() -> None:
    trace = flat_trace({f"p{i}": i / 10 for i in range(10)})
    known = metadata_of_trace(trace)
    assert known["difficulty"] == pytest.approx([1 - i / 10 for i in range(10)])
    assert known["category"] == [f"fifth {5 - i // 2}" for i in range(10)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_replays(name: str) -> None:
    rates = np.random.default_rng(0).beta(0.6, 0.6, 40)
    run = replay(flat_trace({f"p{i}": round(r * 8) / 8 for i, r in enumerate(rates)}), name, rollouts=400)
    assert run.rollouts >= 400
    assert 0 < run.coverage <= 1


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is absent")
def test_the_real_trace_gives_what_is_known_of_it() -> None:
    trace = read_trace(SHARED)
    assert (len(trace.ids), trace.group_size) == (604, 8)
    control = [replay(trace, "random-one", seed=s, rollouts=2000) for s in range(3)]
    assert 0.45 < np.mean([r.informative for r in control]) < 0.6
    learned = replay_row(
        "learnability", [replay(trace, "learnability", seed=s, rollouts=2000) for s in range(3)], control
    )
    assert learned.gain.low > 1.2


# -- command line --------------------------------------------------------------------------------------------------


def test_replay_and_rank_work_from_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    trace = published(tmp_path, {f"q{i}": (rng.integers(0, 9, 6) / 8).tolist() for i in range(30)})
    done = dopr(
        "replay", str(trace), "--seeds", "2", "--budget", "rollouts=200", "--output", str(tmp_path / "replay.json")
    )
    assert done.returncode == 0, done.stderr
    assert "Ceiling" in done.stdout
    stored = json.loads((tmp_path / "replay.json").read_text())
    assert {row["strategy"] for row in stored["strategies"]} == set(STRATEGIES)
    problems = tmp_path / "problems.jsonl"
    problems.write_text(
        "\n".join(json.dumps({"id": f"q{i}", "question": f"{i} + 1?", "answer": i + 1}) for i in range(30))
    )
    top = tmp_path / "top.jsonl"
    done = dopr("rank", str(trace), "--by", "variance", "--top", "4", "--data", str(problems), "--output", str(top))
    assert done.returncode == 0, done.stderr
    best = [i for i, _ in rank(read_trace(trace), "variance")[:4]]
    written = load_problems(str(top))
    assert [p.id for p in written] == best
    assert [p.answer for p in written] == [str(int(i[1:]) + 1) for i in best]


def test_ids_and_names_with_brackets_are_no_markup(tmp_path: Path) -> None:
    trace = tmp_path / "t[bold].json"
    trace.write_text(json.dumps({"train[easy]": [0.5, 0.0], "[/x]": [0.0, 1.0]}))
    done = dopr("rank", str(trace), "--top", "2")
    assert done.returncode == 0, done.stderr
    assert "train[easy]" in done.stdout
    assert "[/x]" in done.stdout
    output = tmp_path / "out[red].json"
    done = dopr(
        "replay",
        str(trace),
        "--seeds",
        "1",
        "--budget",
        "rollouts=40",
        "--strategies",
        "random-one",
        "--output",
        str(output),
    )
    assert done.returncode == 0, done.stderr
    assert "t[bold].json" in done.stdout
    assert "out[red].json" in done.stdout


def test_the_ceiling_is_that_of_what_is_replayed(tmp_path: Path) -> None:
    command = ("--budget", "rollouts=100", "--strategies", "random-one,uniform")
    text = " ".join(dopr("replay", str(published(tmp_path, {"a": [0, 0], "b": [1, 1]})), *command).stdout.split())
    assert "no whole group of 2 drawn from this record is informative; only rollouts beyond" in text
    text = " ".join(dopr("replay", str(published(tmp_path, {"a": [0.25, 0.5], "b": [1, 1]})), *command).stdout.split())
    assert "of whole groups of 4 drawn from this record 50% are informative at random and 100% at best" in text
    assert "no selector gains more than 2.00x" in text
    odd = dopr("replay", str(published(tmp_path, {"a": [0.01, 0.99]})), *command, "--seeds", "1").stdout
    assert "no group size explains the recorded rates" in " ".join(odd.split())
    assert "[" not in next(line for line in odd.splitlines() if "uniform" in line)  # one seed: no interval, no mark
    assert "=" not in next(line for line in odd.splitlines() if "uniform" in line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "{trace}", "--budget", "tokens=9"], "rollouts only"),
        (["replay", "{trace}", "--seeds", "0"], "at least 1"),
        (["replay", "{trace}", "--budget", "rollouts=0.5"], "less than one rollout"),
        (["replay", "{trace}", "--output", "/tmp"], "is a directory"),
        (
            ["replay", "{trace}", "--budget", "rollouts=20", "--strategies", "random-one", "--output", "x" * 300],
            "name too long",
        ),
        (["replay", "{trace}", "--strategies", "mops"], "Did you mean 'mopps'"),
        (
            ["replay", "{trace}", "--strategies", "nowhere:Nothing"],
            "names the module 'nowhere', which is neither installed nor in",
        ),
        (["replay", "{trace}", "--group-size", "1"], "at least 2 rollouts"),
        (["replay", "{trace}", "--group-size", "0"], "group size is 0"),
        (["replay", "{trace}", "--prompts-per-round", "0"], "prompts_per_round is 0"),
        (["replay", "{trace}", "--prompts-per-round", "9"], "A round of 9 prompts cannot be drawn from a pool of 2"),
        (["replay", "{trace}", "--output", "{trace}"], "trace.json exists already"),
        (["replay", "{trace}", "--output", "/nonexistent/x.json"], "does not exist"),
        (["replay", "{halved}"], "prompt 'a\\ud800': the id holds half of a surrogate pair"),
        (["rank", "{halved}"], "prompt 'a\\ud800': the id holds half of a surrogate pair"),
        (["replay", "missing.json"], "There is no missing.json"),
        (["rank", "{trace}", "--top", "0"], "at least 1"),
        (["rank", "{trace}", "--output", "x.jsonl"], "--data"),
        (["rank", "{trace}", "--data", "nothing.jsonl", "--output", "x.jsonl"], "nothing.jsonl"),
    ],
)
def test_wrong_use_is_refused_in_one_paragraph(tmp_path: Path, arguments: list[str], message: str) -> None:
    trace = published(tmp_path, {"a": [0.5, 0.25], "b": [0.0, 1.0]})
    (halved := tmp_path / "halved.json").write_text(json.dumps({"a\ud800": [0.5, 0.25], "b": [0.0, 1.0]}))
    done = dopr(*(a.format(trace=trace, halved=halved) for a in arguments))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert json.loads(trace.read_text()) == {"a": [0.5, 0.25], "b": [0.0, 1.0]}
    assert not Path("x.jsonl").exists()
