"""Bad input through the real command line: exit code 2, one clear paragraph, no traceback, nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from cli_kit import COMMAND, ENVIRONMENT
from dopr.tasks.tiny import tiny_policy_path

GOOD = [{"id": str(i), "question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(8)]


def dopr(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def problems(folder: Path, rows: list[object], name: str = "problems.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def refused(folder: Path, *arguments: str) -> str:
    """The message of a `dopr train` that must be refused."""
    before = sorted(folder.rglob("*"))
    done = dopr(folder, "train", "--output", "run", *arguments)
    message = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert message.startswith(("dopr: ", "Usage: "))
    left = [p for p in sorted(folder.rglob("*")) if p not in before and "__pycache__" not in str(p)]
    assert left == []
    return message


DATA_CASES: dict[str, tuple[list[object], list[str]]] = {
    "no prompt column": ([{"text": "a", "answer": "1"}], ["none is a prompt", "text", "--prompt-column"]),
    "no answer column": ([{"question": "a", "note": "1"}], ["none is an answer", "note", "--answer-column"]),
    "duplicate ids": ([GOOD[0], {**GOOD[1], "id": "0"}], ["'0'", "line 1", "line 2"]),
    "empty prompt": ([*GOOD, {"id": "x", "question": "  ", "answer": "1"}], ["line 9", "empty"]),
    "a part of the problem": ([{**row, "choices": ["4", "5"]} for row in GOOD], ["'choices' holds", "--prompt-column"]),
    "empty gold": ([*GOOD, {"id": "x", "question": "q", "answer": ""}], ["line 9", "empty"]),
}


@pytest.mark.parametrize("case", DATA_CASES)
def test_a_bad_row_is_named(tmp_path: Path, case: str) -> None:
    rows, words = DATA_CASES[case]
    message = refused(tmp_path, "--data", problems(tmp_path, rows))
    for word in words:
        assert word in message


def test_bad_files_are_named(tmp_path: Path) -> None:
    assert "There is no file or directory 'missing.jsonl'" in refused(tmp_path, "--data", "missing.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    assert "holds no problems" in refused(tmp_path, "--data", "empty.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"question": "a", "answer": "1"}\n{"question": \n')
    assert "broken.jsonl, line 2: it is not valid JSON" in refused(tmp_path, "--data", "broken.jsonl")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    assert "'.png'" in refused(tmp_path, "--data", "image.png")


def test_a_gold_that_its_own_verifier_rejects_is_named(tmp_path: Path) -> None:
    file = problems(tmp_path, [*GOOD, {"id": "bad", "question": "q", "answer": "no number"}])
    message = refused(tmp_path, "--data", file, "--reward", "number")
    assert "'bad'" in message
    assert "1 of 9" in message


TESTED = {"prompt": "Write f.", "tests": ["assert f(1) == 1"]}


@pytest.mark.parametrize(
    ("row", "reward", "words"),
    [
        ({"prompt": "Write g."}, "code", ["1 of 2", "('Write g.'): it has no column 'tests'"]),
        ({"prompt": "Write g.", "tests": "no program (("}, "code&format:boxed", ["'Write g.'", "tests cannot be read"]),
        ({"prompt": "Write g.", "tests": []}, "code:partial", ["'Write g.'", "tests cannot be read"]),
        ({"prompt": "Write g.", "tests": "no program (("}, "auto", ["'Write g.'", "tests cannot be read"]),
        ({"prompt": "Write g."}, "auto", ["line 2: it has neither an answer nor tests"]),
    ],
)
def test_code_without_tests_is_named_before_anything_is_loaded(
    tmp_path: Path, row: dict[str, object], reward: str, words: list[str]
) -> None:
    message = refused(tmp_path, "--data", problems(tmp_path, [TESTED, row]), "--reward", reward, "--eval-problems", "0")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--group-size", "1"], ["group size is 1", "at least 2"]),
        (["--candidates", "100"], ["candidate batch of 100", "pool of 8", "--candidates"]),
        (["--prompts-per-round", "9"], ["A round of 9", "Set --prompts-per-round to at most 8"]),
        (["--strategy", "uniform", "--prompts-per-round", "9"], ["Set --prompts-per-round to at most 8"]),
        (["--trainer", "generation_batch_size=12"], ["generation_batch_size=12", "Use --prompts-per-round"]),
        (["--trainer", "temperature=0.5"], ["temperature=0.5 would reach the trainer alone", "Use --temperature"]),
        (["--trainer", "learning_rate=1e-5"], ["Use --learning-rate"]),
        (["--trainer", "dopr_strategy=uniform"], ["Use --strategy"]),
        (["--trainer", "dopr_events=elsewhere.jsonl"], ["Use --output"]),
        (["--trainer", 'chat_template_kwargs={"enable_thinking": false}'], ["Use --chat-option"]),
        (["--micro-batch", "3"], ["micro batch of 3", "divisor of 8"]),
        (["--strategy", "dorp"], ["Unknown strategy 'dorp'", "Did you mean 'dopr'"]),
        (["--reward", "numbr"], ["numbr", "number"]),
        (["--reward", "missing_module:f"], ["missing_module"]),
        (["--option", "volatilty=within"], ["no option 'volatilty'", "Did you mean 'volatility'"]),
        (["--option", "volatility=sideways"], ["sideways", "expected, within, temporal or both"]),
        (["--budget", "steps=10"], ["steps=10", "rollouts=3000"]),
        (["--budget", "rollouts=-5"], ["UNIT=NUMBER"]),
        (["--template", "Solve it."], ["{prompt}"]),
        (["--temperature", "0"], ["temperature is 0"]),
        (["--learning-rate", "nan"], ["learning_rate is nan"]),
        (["--seed", "-1"], ["seed is -1"]),
        (["--no-such-flag"], ["No such option"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_impossible_settings_are_refused_before_anything_is_loaded(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    message = refused(tmp_path, "--data", problems(tmp_path, GOOD), "--eval-problems", "0", *arguments)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "nosuch"], ["problems.jsonl: a single file has no splits", "split (nosuch)"]),
        (["--eval-data", "other.jsonl", "--split", "train"], ["problems.jsonl, other.jsonl: a single file"]),
        (["--data", "gym:chain_sum", "--prompt-column", "q"], ["gym:chain_sum: generated", "prompt_column would have"]),
        (["--data", "world:mixed", "--id-column", "n"], ["id_column would have no effect"]),
        (["--target", "0.9"], ["No problems are held out of problems.jsonl", "target would have no effect"]),
        (
            ["--evaluations", "3", "--target", "0.9", "--eval-problems", "0"],
            ["target, evaluations would have no effect"],
        ),
    ],
)
def test_options_that_would_have_no_effect_are_refused(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    problems(tmp_path, [{"question": "Another?", "answer": "1"}], "other.jsonl")
    message = refused(tmp_path, "--data", problems(tmp_path, GOOD), *arguments)
    for word in words:
        assert word in message


def test_options_that_have_an_effect_on_one_of_the_sources_are_taken(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    problems(tmp_path, GOOD, "both/train.jsonl")
    problems(tmp_path, [{"question": "Another?", "answer": "1"}], "other.jsonl")
    message = refused(
        tmp_path, "--data", "both", "--eval-data", "other.jsonl", "--split", "train", "--model", "no-such"
    )
    assert "There is no model" in message


def test_eval_refuses_data_beside_sets_and_a_split_of_a_single_file(tmp_path: Path) -> None:
    file = problems(tmp_path, GOOD)
    for arguments, words in (
        (["--data", file, "--sets", "gsm8k"], "data (problems.jsonl) would have no effect"),
        (["--data", file, "--split", "train"], "split (train) would have no effect"),
    ):
        done = dopr(tmp_path, "eval", *arguments)
        assert done.returncode == 2
        assert words in " ".join(done.stderr.split())


def test_bad_config_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("learning_rat: 1e-5\n")
    assert "Did you mean 'learning_rate'" in refused(tmp_path, "--config", "a.yaml")
    (tmp_path / "b.toml").write_text("model = \n")
    assert "b.toml is not valid toml" in refused(tmp_path, "--config", "b.toml")
    (tmp_path / "c.yaml").write_text("- a\n- b\n")
    assert "NAME: VALUE" in refused(tmp_path, "--config", "c.yaml")
    (tmp_path / "d.yaml").write_text("group_size: many\n")
    assert "'group_size' is 'many'" in refused(tmp_path, "--config", "d.yaml")
    assert "cannot be read" in refused(tmp_path, "--config", "missing.yaml")


def test_a_path_that_is_no_model_is_named(tmp_path: Path) -> None:
    file = problems(tmp_path, GOOD)
    assert "There is no model at 'no-such-model'" in refused(tmp_path, "--data", file, "--model", "no-such-model")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("hello")
    message = refused(tmp_path, "--data", file, "--model", "notes")
    assert "config.json" in message
    assert "readme.txt" in message


def test_an_output_that_holds_another_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    message = refused(tmp_path, "--data", problems(tmp_path, GOOD))
    assert "holds another run" in message
    assert "--resume" in message
    assert (tmp_path / "run" / "config.json").read_text() == "{}"


def test_trl_settings_that_do_not_exist_leave_nothing_behind(tmp_path: Path) -> None:
    message = refused(tmp_path, "--data", problems(tmp_path, GOOD), "--trainer", "bets=0.1")
    assert "'bets'" in message
    assert "beta" in message


def test_reward_functions_that_cannot_work_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import time\n"
        "def raises(completions, **_): raise KeyError('gold')\n"
        "def hangs(completions, **_): time.sleep(60)\n"
        "def short(completions, **_): return [1.0]\n"
        "def texts(completions, **_): return ['good'] * len(completions)\n"
        "def nans(completions, **_): return [float('nan')] * len(completions)\n"
    )
    file = problems(tmp_path, GOOD)
    for name, words in {
        "raises": ["raises", "KeyError"],
        "hangs": ["hangs", "more than 1 second"],
        "short": ["short", "1 reward"],
        "texts": ["texts", "good"],
        "nans": ["nans", "NaN"],
    }.items():
        message = refused(tmp_path, "--data", file, "--reward", f"mine:{name}", "--reward-timeout", "1")
        for word in words:
            assert word in message, message


def test_a_column_that_a_function_cannot_be_given_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def r(completions, hints, **columns):\n    return [1.0] * len(completions)\n")
    file = problems(tmp_path, [*({**row, "hints": ["a"]} for row in GOOD), {**GOOD[0], "id": "x", "hints": 3}])
    message = refused(tmp_path, "--data", file, "--reward", "mine:r")
    assert "missing 1 required positional argument: 'hints'" in message
    assert "Not given: 'hints' (a dataset cannot hold it: " in message


def test_a_pool_without_signal_warns_early_and_stops_when_asked(tmp_path: Path) -> None:
    rows = [{"question": f"Name star {i}.", "answer": str(10**9 + i)} for i in range(20)]
    done = dopr(
        tmp_path, "train", "--data", problems(tmp_path, rows), "--model", str(tiny_policy_path()), "--output", "run",
        "--max-completion-length", "3", "--warn-constant", "2", "--stop-constant", "5", "--eval-problems", "0",
    )  # fmt: skip
    text = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert "No learning signal in 2 rounds in a row (2 all wrong)" in text
    assert "too hard" in text
    assert "Stopped: No learning signal in 5 rounds" in text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "stopped"
    assert summary["spent"]["updates"] == 5


def test_eval_and_report_say_what_is_wrong(tmp_path: Path) -> None:
    for arguments, word in (
        (["eval", "--model", "tiny", "--data", "missing.csv"], "missing.csv"),
        (["eval", "--run", "nowhere"], "config.json"),
        (["report", "nowhere"], "nowhere"),
        (
            ["eval", "-n", "4", "--temperature", "0", "--data", problems(tmp_path, GOOD)],
            "temperature 0",
        ),
        (["train", "--resume", "nowhere"], "nowhere"),
    ):
        done = dopr(tmp_path, *arguments)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert word in done.stderr


def test_a_trainer_setting_is_checked_before_the_weights_are_read(tmp_path: Path) -> None:
    shutil.copytree(tiny_policy_path(), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no weights")
    file = problems(tmp_path, list(GOOD))
    for setting in ("bta=1", "beta=abc"):
        message = refused(tmp_path, "--data", file, "--model", "model", "--trainer", setting)
        assert setting.partition("=")[0] in message
