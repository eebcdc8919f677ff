"""What runs write and print, seen from the command line: logs that add up, other settings, pools without signal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli_kit import dopr, events, sums, write_jsonl
from dopr.report_run import read_run

pytest.importorskip("trl", reason="TRL is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.trl]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of all runs here."""
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[Path, str]:
    """A finished run of the embedded default, cut short, and what it printed."""
    return place / "run", dopr(
        place, "train", "--budget", "rollouts=120", "--evaluations", "1", "--seed", "5", "--target", "0.99", "--output", "run"
    )  # fmt: skip


# -- what a run leaves behind --------------------------------------------------------------------------------------


def test_the_log_is_whole_contiguous_and_adds_up(finished: tuple[Path, str]) -> None:
    rounds = events(finished[0], "round")
    assert [e["round"] for e in rounds] == list(range(1, len(rounds) + 1))
    totals = [e["spent"] for e in rounds]
    for unit in ("rollouts", "tokens", "seconds", "updates", "prompts"):
        values = [t[unit] for t in totals]
        assert values == sorted(values)
        assert values[0] > 0
    assert 120 <= totals[-1]["rollouts"] < 120 + 32
    assert totals[-2]["rollouts"] < 120  # it stopped at once
    assert totals[-1]["rollouts"] == sum(p["rollouts"] for e in rounds for p in e["picks"])
    assert totals[-1]["tokens"] == sum(p["tokens"] for e in rounds for p in e["picks"])
    assert [len(e["picks"]) for e in rounds] == [1] * len(rounds)
    for e in rounds:
        assert len(e["candidates"]) == len(set(e["candidates"])) == len(e["scores"])
        for pick in e["picks"]:
            assert len(pick["rewards"]) == pick["rollouts"]
            assert pick["id"] in e["candidates"]
            assert (pick["outcome"] == "mixed") == (len(set(pick["rewards"])) > 1)
    assert events(finished[0])[0]["kind"] == "eval"
    assert events(finished[0])[-1]["kind"] == "stop"
    assert [e["round"] for e in events(finished[0], "eval")][::2] == [0, len(rounds)]


def test_a_run_that_a_target_ended_is_measured_by_other_draws_than_those_that_reached_it(place: Path) -> None:
    said = dopr(
        place, "train", "--evaluations", "20", "--target", "0.5", "--eval-problems", "64", "--output", "at-target"
    )
    evaluations = events(place / "at-target", "eval")
    stopping, after = evaluations[-2:]
    assert stopping["accuracy"] >= 0.5 > max(e["accuracy"] for e in evaluations[:-2])
    assert stopping["spent"] == after["spent"]
    assert stopping["correct"] != after["correct"]
    summary = read(place / "at-target" / "summary.json")
    assert summary["reason"] == "target accuracy 0.5 reached"
    assert summary["reached"] == stopping["spent"]
    assert summary["after"]["accuracy"] == after["accuracy"]
    assert f"{after['accuracy']:.1%}" in said
    dopr(place, "eval", "--run", "at-target", "--output", "at-target-again")
    again = read(place / "at-target-again" / "evaluation.json")["metrics"]["avg@1"]["estimate"]
    assert again == pytest.approx(after["accuracy"])
    points = read_run(place / "at-target").evals
    assert [accuracy for at, accuracy, _, _ in points if at == after["spent"]["rollouts"]] == [
        stopping["accuracy"], after["accuracy"],
    ]  # fmt: skip


def test_the_summary_agrees_with_the_log_and_the_terminal(finished: tuple[Path, str]) -> None:
    run, printed = finished
    summary, rounds, measured = read(run / "summary.json"), events(run, "round"), events(run, "eval")
    assert (summary["status"], summary["reason"]) == ("finished", "budget spent")
    assert summary["spent"]["rollouts"] == rounds[-1]["spent"]["rollouts"]
    assert summary["before"]["accuracy"] == measured[0]["accuracy"]
    assert summary["after"]["accuracy"] == measured[-1]["accuracy"]
    assert len(measured) == 3  # before, one between, after
    assert summary["difference"]["estimate"] == pytest.approx(
        summary["after"]["accuracy"] - summary["before"]["accuracy"]
    )
    for part in ("before", "after"):
        assert summary[part]["low"] <= summary[part]["accuracy"] <= summary[part]["high"]
        assert f"{summary[part]['accuracy']:.1%}" in printed
    assert str(run.name) + "/report.html" in printed
    assert "Traceback" not in printed
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")
    config = read(run / "config.json")
    assert config["settings"]["seed"] == 5
    assert config["resolved"]["problems"] == 2000
    assert config["versions"]["torch"]
    assert sorted(p.name for p in (run / "checkpoints").iterdir())[-1] == "final"


# -- a user's own problems -----------------------------------------------------------------------------------------


def test_own_problems_with_a_toml_file_a_baseline_and_lora(place: Path) -> None:
    write_jsonl(place / "sums.jsonl", sums(80))
    (place / "own.toml").write_text(
        'data = "sums.jsonl"\nstrategy = "random-one"\nlora = 4\nbudget = "updates=3"\noutput = "own"\nevaluations = 0\n'
        "[trainer]\nbeta = 0.01\n",
        encoding="utf-8",
    )
    dopr(place, "train", "--config", "own.toml")
    assert (place / "own" / "report.html").exists()
    config, summary = read(place / "own" / "config.json"), read(place / "own" / "summary.json")
    assert config["resolved"]["rewards"] == ["number"]
    assert config["resolved"]["problems"] == 72  # a tenth is held out
    assert summary["after"]["n"] == 8
    assert summary["spent"]["updates"] == 3
    rounds = events(place / "own", "round")
    assert {p["id"] for e in rounds for p in e["picks"]} <= {row["id"] for row in sums(80)}
    assert all(len(e["picks"]) == 1 and e["replayed"] == 0 for e in rounds)
    adapter = place / "own" / "checkpoints" / "final"
    assert (adapter / "adapter_model.safetensors").exists()
    assert not (adapter / "model.safetensors").exists()
    dopr(place, "train", "--model", "own/checkpoints/final", "--data", "sums.jsonl", "--trainer", "max_steps=2", "--evaluations", "0",
         "--eval-problems", "0", "--output", "further")  # fmt: skip
    further = read(place / "further" / "summary.json")
    assert (further["status"], further["reason"]) == ("stopped", "max_steps reached")  # not the budget
    weights = [
        (run / "checkpoints" / "final" / "adapter_model.safetensors").read_bytes()
        for run in (place / "own", place / "further")
    ]
    assert weights[0] != weights[1]
    dopr(place, "eval", "--run", "own", "--output", "own-measured")
    measured = read(place / "own-measured" / "evaluation.json")["metrics"]["avg@1"]
    assert measured["estimate"] == summary["after"]["accuracy"]


def test_a_run_is_not_evaluated_on_problems_that_have_changed_since(place: Path) -> None:
    write_jsonl(place / "old.jsonl", sums(40))
    write_jsonl(place / "aside.jsonl", sums(60)[40:])
    small = ("--trainer", "max_steps=1", "--evaluations", "0", "--max-completion-length", "4")
    dopr(place, "train", "--data", "old.jsonl", *small, "--output", "split")
    dopr(place, "train", "--data", "old.jsonl", "--eval-data", "aside.jsonl", *small, "--output", "beside")
    write_jsonl(place / "aside.jsonl", sums(70)[40:])
    write_jsonl(place / "old.jsonl", sums(80)[20:])
    printed = dopr(place, "eval", "--run", "split", code=2)
    assert "cannot be evaluated again with other data (data_fingerprint: " in printed
    assert "split/checkpoints/final with --model and --data" in printed
    write_jsonl(place / "old.jsonl", [row | {"bonus": 1} for row in sums(40)])  # a column that a reward may read
    assert "(data_fingerprint: " in dopr(place, "eval", "--run", "split", code=2)
    write_jsonl(place / "old.jsonl", sums(40))
    printed = dopr(place, "eval", "--run", "beside", code=2)
    assert "cannot be evaluated again with other data (held_out_fingerprint: " in printed
    assert "trained on" not in dopr(place, "eval", "--run", "split")


def test_a_checkpoint_that_was_trained_on_what_it_is_evaluated_on_says_so(place: Path) -> None:
    write_jsonl(place / "pool.jsonl", sums(40))
    write_jsonl(place / "later.jsonl", [{**row, "question": row["question"] + " \n"} for row in sums(50)[30:]])
    (place / "loud.py").write_text(
        "print('IMPORTED')\ndef right(completions, **columns):\n    return [1.0] * len(completions)\n"
    )
    small = ("--trainer", "max_steps=1", "--evaluations", "0", "--max-completion-length", "4", "--reward", "loud:right")
    dopr(place, "train", "--data", "pool.jsonl", "--eval-problems", "0", *small, "--output", "seen")
    (place / "linked").symlink_to(place / "seen" / "checkpoints" / "final")
    evaluated = ("eval", "--model", "seen/checkpoints/final", "--max-completion-length", "4", "--data")
    printed = dopr(place, *evaluated, "later.jsonl")
    assert "10 of the 20 problems of later.jsonl were among those that" in printed
    assert "IMPORTED" not in printed  # the run's reward is none of its business
    assert "--run" not in printed  # it held nothing out
    printed = dopr(place, "eval", "--model", "linked", "--max-completion-length", "4", "--data", "later.jsonl")
    assert "10 of the 20 problems" in printed
    write_jsonl(place / "later.jsonl", sums(60)[40:])
    assert "were among those" not in dopr(place, *evaluated, "later.jsonl")
    write_jsonl(place / "pool.jsonl", sums(60))  # no longer what it was trained on: not known
    assert "were among those" not in dopr(place, *evaluated, "later.jsonl")


def test_batch_grpo_with_micro_batches_and_a_reward_function_of_the_user_s(place: Path) -> None:
    write_jsonl(place / "more.jsonl", sums(40))
    (place / "digits.py").write_text(
        "def even(completions, answer, **columns):\n"
        "    assert len(answer) == len(completions) == len(columns['id'])\n"
        "    return [float(len(c) % 2 == 0) if c else None for c in completions]\n",
        encoding="utf-8",
    )
    dopr(
        place, "train", "--data", "more.jsonl", "--strategy", "uniform", "--prompts-per-round", "3", "--group-size", "4",
        "--micro-batch", "6", "--reward", "digits:even", "--budget", "updates=4", "--eval-problems", "0", "--output", "batch",
    )  # fmt: skip
    rounds, summary = events(place / "batch", "round"), read(place / "batch" / "summary.json")
    assert [len(e["picks"]) for e in rounds] == [3] * 4
    picked = [p["id"] for e in rounds for p in e["picks"]]
    assert len(set(picked)) == 12
    assert all(p["rollouts"] == 4 for e in rounds for p in e["picks"])
    assert summary["spent"]["updates"] == 4
    # A round is closed after its first micro-batch of two; the second takes time, too, and the step.
    assert summary["spent"]["seconds"] > rounds[-1]["spent"]["seconds"]
    assert "after" not in summary
    assert summary["rewards"]["even"]["scored"] == 48 - summary["rewards"]["even"]["unscorable"]


def test_a_function_is_given_lists_objects_and_mixed_numbers_in_trial_training_and_evaluation(place: Path) -> None:
    rows = [
        {**row, "cases": {"text": ["1"] * (i % 3)}, "hints": ["a"] * (i % 2), "weight": 1 if i % 2 else 0.5}
        for i, row in enumerate(sums(40))
    ]
    write_jsonl(place / "nested.jsonl", rows)
    (place / "nested.py").write_text(
        "def score(completions, cases, hints, weight, **columns):\n"
        "    assert all(isinstance(c['text'], list) for c in cases) and all(isinstance(h, list) for h in hints)\n"
        "    assert all(isinstance(w, float) for w in weight)\n"
        "    return [float(len(c) % 2) for c in completions]\n",
        encoding="utf-8",
    )
    printed = dopr(
        place, "train", "--data", "nested.jsonl", "--reward", "nested:score", "--trainer", "max_steps=2", "--output", "nested-run",
        "--evaluations", "0", "--max-completion-length", "4",
    )  # fmt: skip
    assert "not given all columns" not in printed
    counts = read(place / "nested-run" / "summary.json")["rewards"]["score"]
    assert counts["scored"] > 0
    assert (counts["unscorable"], counts["errors"]) == (0, 0)


# -- no signal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        ("return [1.0] * len(completions)", "all_right", "all their rollouts succeeded"),
        (  # passes the trial on gold answers, fails on everything else
            "if [c for c, a in zip(completions, answer) if c != a]: raise ValueError('no [/b] [red]\\x1b[2J')\n    return [1.0] * len(completions)",
            "unscorable",
            "none of their rollouts could be scored",
        ),
    ],
)
def test_a_pool_without_signal_is_named_early_and_the_run_stops_when_asked(
    place: Path, body: str, outcome: str, reason: str
) -> None:
    write_jsonl(place / "flat.jsonl", sums(40))
    (place / f"flat_{outcome}.py").write_text(f"def flat(completions, answer, **_):\n    {body}\n", encoding="utf-8")
    printed = dopr(
        place, "train", "--data", "flat.jsonl", "--reward", f"flat_{outcome}:flat", "--output", outcome, "--eval-problems", "0",
        "--warn-constant", "2", "--stop-constant", "3", "--wrong-cap", "8", "--max-completion-length", "4",
    )  # fmt: skip
    run, summary = place / outcome, read(place / outcome / "summary.json")
    assert [e["round"] for e in events(run, "warning")] == [2, 3]
    assert {p["outcome"] for e in events(run, "round") for p in e["picks"]} == {outcome}
    assert len(events(run, "round")) == 3
    assert summary["status"] == "stopped"
    assert reason in summary["reason"]
    assert "Warning: No learning signal in 2 rounds in a row" in printed
    assert "Stopped: No learning signal in 3 rounds in a row" in printed
    assert reason in printed
    assert "\x1b[2J" not in printed  # what an exception quotes does not reach the terminal's controls
    assert ("no [/b] [red]" in printed.partition("Warning: ")[2]) == (outcome == "unscorable")


def test_the_report_can_be_written_again(finished: tuple[Path, str], place: Path) -> None:
    page = finished[0] / "report.html"
    before = page.read_text(encoding="utf-8")
    page.unlink()
    assert "report.html" in dopr(place, "report", "run")
    assert page.read_text(encoding="utf-8") == before


# -- refusals that the other files do not cover --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--seed", "5000000000"], "seed is 5000000000; it must be 0 or more and below 2^32"),
        (["train", "--output", "sums.jsonl"], "The output sums.jsonl is not an empty directory"),
        (["train", "--option", "ucb=.inf"], "ucb is inf; it must be >= 0 and finite"),
        (
            ["train", "--option", "clusters=2.5"],
            "Option 'clusters' of strategy 'dopr' is 2.5; it must be a whole number or nothing",
        ),
        (["train", "--config", "resume.yaml"], "Give it as --resume"),
        (["train", "--resume", "strange"], "strange/config.json is not the config of a dopr run"),
        (
            ["train", "--trainer", "num_generations=5"],
            "would reach the trainer alone, not the evaluation and the records. Use --group-size",
        ),
        (
            ["train", "--trainer", "beta=abc", "--output", "out"],
            "The trainer setting beta is 'abc'; its default is 0.0",
        ),
        (["train", "--trainer", "scale_rewards=grop", "--output", "out"], "Did you mean 'group'"),
        (["train", "--trainer", "loss_type=dappo", "--output", "out"], "Did you mean 'dapo'"),
        (["train", "--trainer", "auto_find_batch_size=true", "--output", "empty"], "TRL refuses these settings"),
        (["train", "--trainer", "auto_find_batch_size=true", "--output", "a/b/c"], "TRL refuses these settings"),
        (["train", "--dtype", "f32", "--output", "out"], "Did you mean 'float32'"),
        (["train", "--top-p", "2", "--output", "out"], "top_p is 2.0"),
        (["eval", "-n", "2", "-k", "5"], "pass@5 cannot be measured with 2 samples"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_a_mistake_is_named_and_leaves_nothing_behind(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_jsonl(tmp_path / "sums.jsonl", sums(20))
    (tmp_path / "resume.yaml").write_text("resume: somewhere\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.json").write_text("[]", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    printed = dopr(tmp_path, *arguments, code=2)
    assert message in printed
    assert "Traceback" not in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_a_function_that_breaks_in_mid_run_ends_it_with_its_name_and_keeps_what_was_learned(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "sums.jsonl", sums(20))
    (tmp_path / "late.py").write_text(
        "calls = []\n"
        "def late(completions, **_):\n"
        "    calls.append(1)\n"
        "    return ['text'] * len(completions) if len(calls) > 6 else [float(len(c) % 2) for c in completions]\n",
        encoding="utf-8",
    )
    printed = dopr(
        tmp_path, "train", "--data", "sums.jsonl", "--reward", "late:late", "--output", "run", "--eval-problems", "0",
        "--chunk", "8", "--wrong-cap", "8", "--right-cap", "8", "--learning-rate", "1e-6",
    )  # fmt: skip
    assert "of the rollouts in the last 16 rounds could not be scored" in printed.partition("Stopped: ")[2]
    assert "0 timeouts; latest: The reward function late returned 'text' (of type str)" in printed
    assert "Traceback" not in printed
    assert "Continue: dopr train --resume run" in printed
    rounds, summary = events(tmp_path / "run", "round"), read(tmp_path / "run" / "summary.json")
    outcomes = [p["outcome"] for e in rounds for p in e["picks"]]
    assert set(outcomes[-12:]) == {"unscorable"}
    assert set(outcomes[:2]) <= {"mixed", "all_wrong", "all_right"}
    assert summary["status"] == "stopped"
    unscorable = summary["rewards"]["late"]["unscorable"]
    assert unscorable == 8 * outcomes.count("unscorable")
    assert f"{unscorable} of " in printed
    assert "could not be given; they were left out, not counted as wrong" in printed
