"""The command line end to end, on the packaged policy, in real subprocesses."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cli_kit
from cli_kit import COMMAND, ENVIRONMENT, events
from dopr.tasks.worlds import load_world

pytestmark = [pytest.mark.slow, pytest.mark.trl]


def dopr(*arguments: str, cwd: Path = Path()) -> str:
    return cli_kit.dopr(cwd, *arguments)


def timeless(value: Any) -> Any:
    """Without the fields that measure time."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "seconds"}
    return [timeless(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One short default run with a checkpoint on the way: its directory and what it printed."""
    directory = tmp_path_factory.mktemp("cli") / "run"
    text = dopr(
        "train", "--budget", "updates=24", "--evaluations", "1", "--save-every", "10", "--output", str(directory)
    )
    return directory, text


def test_train_leaves_a_complete_run_directory(run: tuple[Path, str]) -> None:
    directory, text = run
    names = {p.name for p in directory.iterdir()}
    assert names == {"config.json", "events.jsonl", "summary.json", "report.html", "checkpoints"}
    rounds = events(directory, "round")
    assert [e["round"] for e in rounds] == list(range(1, len(rounds) + 1))
    found = 0
    for earlier, later in itertools.pairwise(rounds):
        found += sum(reward == 1 for pick in earlier["picks"] for reward in pick["rewards"])
        # A round's update, and two replay updates once 8 successes are remembered.
        assert later["step"] - earlier["step"] == 1 + 2 * (found >= 8)
        assert all(
            later["spent"][unit] > earlier["spent"][unit] for unit in ("rollouts", "tokens", "seconds", "prompts")
        )
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["spent"]["updates"] == 24
    assert summary["spent"]["rollouts"] == sum(p["rollouts"] for e in rounds for p in e["picks"])
    assert summary["status"] == "finished"
    assert summary["after"]["accuracy"] > summary["before"]["accuracy"] + 0.05
    first, middle, last = events(directory, "eval")
    assert "greedy" not in middle  # decoded at both ends alone
    for event, end in ((first, summary["before"]), (last, summary["after"])):
        assert len(event["greedy"]) == end["n"] == len(event["correct"])
        assert end["greedy"]["accuracy"] == sum(event["greedy"]) / end["n"]
        assert end["greedy"]["low"] < end["greedy"]["accuracy"] < end["greedy"]["high"]
        assert f"{end['greedy']['accuracy']:.1%}" in text
    assert f"{summary['after']['accuracy']:.1%}" in text
    assert "report.html" in text
    page = (directory / "report.html").read_text()
    assert "<svg" in page
    assert "greedy decoding after" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_config_json_repeats_the_run(run: tuple[Path, str], tmp_path: Path) -> None:
    directory, _ = run
    settings = json.loads((directory / "config.json").read_text())["settings"]
    settings = {k: v for k, v in settings.items() if v is not None and k not in ("output", "resume")}
    (tmp_path / "again.yaml").write_text(json.dumps(settings))  # JSON is YAML
    dopr("train", "--config", "again.yaml", "--output", "again", "--save-every", "0", cwd=tmp_path)
    assert timeless(events(tmp_path / "again", "round")) == timeless(events(directory, "round"))


def test_eval_reproduces_the_run_and_transformers_loads_its_policy(run: tuple[Path, str], tmp_path: Path) -> None:
    directory, _ = run
    text = dopr("eval", "--run", str(directory), "--output", str(tmp_path / "eval"))
    measured = json.loads((tmp_path / "eval" / "evaluation.json").read_text())["metrics"]["avg@1"]
    after = json.loads((directory / "summary.json").read_text())["after"]
    assert measured["estimate"] == after["accuracy"]
    assert f"{after['accuracy']:.1%}" in text
    # The same problems decoded greedily: each id once, no draws.
    text = dopr("eval", "--run", str(directory), "--temperature", "0", "--output", str(tmp_path / "greedy"))
    greedy = json.loads((tmp_path / "greedy" / "evaluation.json").read_text())
    assert list(greedy["metrics"]) == ["greedy"]
    assert greedy["problems"] == after["n"]
    assert greedy["metrics"]["greedy"]["estimate"] == after["greedy"]["accuracy"]
    assert f"{after['greedy']['accuracy']:.1%}" in text
    ids = [
        [json.loads(line)["id"] for line in (tmp_path / name / "completions.jsonl").read_text().splitlines()]
        for name in ("eval", "greedy")
    ]
    assert ids[0] == ids[1]
    code = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; p = sys.argv[1];"
        "m = M.from_pretrained(p); t = T.from_pretrained(p);"
        "ids = m.generate(**t('mip 1 2', return_tensors='pt'), max_new_tokens=4); assert ids.shape[0] == 1;"
        "assert not any(name.startswith('dopr') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(directory / "checkpoints" / "final")], env=ENVIRONMENT, check=True)


def test_eval_samples_several_times_with_pass_at_k(tmp_path: Path) -> None:
    text = dopr("eval", "--size", "40", "-n", "4", "-k", "1", "-k", "4", "--output", str(tmp_path))
    metrics = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]
    assert list(metrics) == ["avg@4", "pass@1", "pass@4", "maj@4"]
    assert metrics["avg@4"]["estimate"] == pytest.approx(metrics["pass@1"]["estimate"])
    assert metrics["pass@4"]["estimate"] > metrics["pass@1"]["estimate"]
    assert "pass@4" in text


def test_a_resumed_run_ends_as_the_uninterrupted_one(run: tuple[Path, str], tmp_path: Path) -> None:
    whole, _ = run
    part = tmp_path / "part"
    command = [*COMMAND, "train", "--budget", "updates=24", "--evaluations", "1"]
    process = subprocess.Popen(
        [*command, "--save-every", "10", "--output", str(part)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (part / "events.jsonl").exists() and len(events_so_far(part)) >= 3:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.02)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    summary = json.loads((part / "summary.json").read_text())
    assert summary["status"] == "interrupted", out
    assert f"dopr train --resume {part}" in out
    assert summary["spent"]["updates"] < 24
    dopr("train", "--resume", str(part))
    ended = json.loads((part / "summary.json").read_text())
    expected = json.loads((whole / "summary.json").read_text())
    assert timeless(events(part, "round")) == timeless(events(whole, "round"))
    assert ended["after"] == expected["after"]
    assert timeless(ended["spent"]) == timeless(expected["spent"])


def events_so_far(run: Path) -> list[str]:
    return [line for line in (run / "events.jsonl").read_text().splitlines() if '"round"' in line and '"picks"' in line]


def test_a_users_own_file_trains_the_tiny_policy(tmp_path: Path) -> None:
    # Sums to be taken digit by digit, in a file of the user's own layout; whole examples are held out by their ids.
    rows = [{"question": p.prompt, "target": p.answer} for p in load_world("shared-skill", size=300)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.toml").write_text(
        'data = "sums.jsonl"\nreward = "world"\nmax_completion_length = 10\neval_samples = 8\n[trainer]\nbeta = 0.0\n'
    )
    text = dopr("train", "--config", "run.toml", "--budget", "rollouts=300", "--output", "run", cwd=tmp_path)
    assert "270 problems, reward world, held out: 30 problems held out from the data" in text
    difference = json.loads((tmp_path / "run" / "summary.json").read_text())["difference"]
    assert difference["low"] > 0.1


def test_batch_training_and_lora_run_through_the_same_command(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    dopr(
        "train", "--strategy", "uniform", "--prompts-per-round", "4", "--micro-batch", "8", "--lora", "4",
        "--budget", "updates=2", "--evaluations", "0", "--size", "64", "--eval-problems", "16", "--output", str(tmp_path / "run"),
    )  # fmt: skip
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["spent"] | {"tokens": 0, "seconds": 0} == {
        "rollouts": 64,
        "tokens": 0,
        "seconds": 0,
        "updates": 2,
        "prompts": 8,
    }
    assert (tmp_path / "run" / "checkpoints" / "final" / "adapter_config.json").exists()
    dopr("eval", "--run", str(tmp_path / "run"))
