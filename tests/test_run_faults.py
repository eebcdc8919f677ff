"""Kills, full disks, read-only places, second processes and changed settings through the command line."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cli_kit import events
from dopr.train import checkpoint

pytest.importorskip("trl", reason="TRL is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.trl]

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
kill_test = importlib.import_module("kill_test")

# One update a round: the tests count both.
SHORT = ["--size", "200", "--eval-problems", "16", "--evaluations", "0", "--seed", "3", "--replay-updates", "0"]


def train(folder: Path, *arguments: str, limit: int | None = None, user: int | None = None) -> tuple[int, str]:
    """``dopr train`` in a fork of this process: exit code and output. ``limit``: most bytes a file may get."""
    kill_test.preload()
    log = folder / "out.log"
    log.write_text("")
    log.chmod(0o666)
    pid = kill_test.start([*arguments], log, watched=folder / "nothing", limit=limit, user=user)
    code = kill_test.wait(pid)
    text = " ".join(log.read_text().split())
    assert "Traceback" not in text
    return code, text


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 updates with checkpoints after 4 and 8."""
    folder = tmp_path_factory.mktemp("finished")
    code, text = train(folder, *SHORT, "--budget", "updates=8", "--save-every", "4", "--output", str(folder / "run"))
    assert code == 0, text
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def contents(run: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


def test_killed_at_random_moments_a_run_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    result = kill_test.kill_and_resume(tmp_path, kills=2, seed=11, updates=6, say=lambda text: None)
    assert result.problems == []
    assert sum(result.kills.values()) == 2
    assert result.finished >= 1


def test_a_finished_run_goes_on_with_a_larger_budget_only(run: Path, tmp_path: Path) -> None:
    code, text = train(tmp_path, "--resume", str(run))
    assert code == 2
    assert "has spent its budget" in text
    code, text = train(tmp_path, "--resume", str(run), "--budget", "updates=10")
    assert code == 0, text
    assert "Going on from checkpoint-8" in text
    assert [e["round"] for e in events(run, "round")] == list(range(1, 11))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["spent"]["updates"] == 10
    assert summary["difference"]["estimate"] == pytest.approx(
        summary["after"]["accuracy"] - summary["before"]["accuracy"]
    )


def test_a_short_run_at_the_usual_settings_leaves_what_it_can_be_trained_further_from(tmp_path: Path) -> None:
    run = tmp_path / "usual"
    code, text = train(tmp_path, "--budget", "rollouts=12", "--output", str(run))
    assert code == 0, text
    done = max(e["round"] for e in events(run, "round"))
    code, text = train(tmp_path, "--resume", str(run), "--budget", "rollouts=40")
    assert code == 0, text
    assert "Going on from checkpoint-" in text
    assert not list(run.glob("events.before-restart*"))
    rounds = [e["round"] for e in events(run, "round")]
    assert rounds == list(range(1, len(rounds) + 1))
    assert len(rounds) > done
    code, text = train(tmp_path, "--budget", "rollouts=12", "--save-minutes", "0", "--output", str(tmp_path / "none"))
    assert code == 0, text
    assert [p.name for p in (tmp_path / "none" / "checkpoints").iterdir()] == ["final"]


def test_a_run_that_was_killed_while_it_was_trained_further_goes_on(run: Path, tmp_path: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["settings"]["budget"] = (
        "updates=10"  # what a resume writes before it trains; the summary is the finished run's still
    )
    (run / "config.json").write_text(json.dumps(config))
    code, text = train(tmp_path, "--resume", str(run))
    assert code == 0, text
    assert json.loads((run / "summary.json").read_text())["spent"]["updates"] == 10
    code, text = train(tmp_path, "--resume", str(run))
    assert code == 2
    assert "has spent its budget" in text


def test_a_half_written_checkpoint_is_named_and_skipped(run: Path, tmp_path: Path) -> None:
    (run / "summary.json").unlink()
    state = run / "checkpoints" / "checkpoint-8" / "dopr_state.npz"
    state.write_bytes(state.read_bytes()[:-100])
    code, text = train(tmp_path, "--resume", str(run))
    assert code == 0, text
    assert "Skipped checkpoint-8: its dopr_state.npz has" in text
    assert "Going on from checkpoint-4" in text
    assert [e["round"] for e in events(run, "round")] == list(range(1, 9))


def test_without_checkpoints_a_run_starts_again_and_keeps_the_old_log(
    run: Path, finished: Path, tmp_path: Path
) -> None:
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints")
    code, text = train(tmp_path, "--resume", str(run))
    assert code == 0, text
    assert "There is no complete checkpoint: the run starts again from its first round" in text
    assert kill_test.outcome(run) == kill_test.outcome(finished)
    assert (run / "events.before-restart-1.jsonl").read_text() == (finished / "events.jsonl").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--learning-rate", "0.5"], "learning_rate: 0.0002 then, 0.5 now"),
        (["--size", "150"], "size: 200 then, 150 now"),
        (["--seed", "4", "--trainer", "beta=0.1"], "seed: 3 then, 4 now"),
        (["--data", "world:mixed"], "data: 'world:latent-strategy' then, 'world:mixed' now"),
    ],
)
def test_other_settings_are_refused_with_the_difference(
    run: Path, tmp_path: Path, change: list[str], words: str
) -> None:
    (run / "summary.json").unlink()
    before = contents(run)
    code, text = train(tmp_path, "--resume", str(run), *change)
    assert code == 2
    assert words in text
    assert "--force" in text
    assert contents(run) == before


def test_forced_a_changed_run_goes_on_and_says_so(run: Path, tmp_path: Path) -> None:
    code, text = train(tmp_path, "--resume", str(run), "--learning-rate", "2e-4", "--budget", "updates=9", "--force")
    assert code == 0, text
    assert "Forced: learning_rate: None then, 0.0002 now" in text
    assert len(events(run, "round")) == 9


def test_a_log_that_was_cut_is_refused(run: Path, tmp_path: Path) -> None:
    log = run / "events.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:3]))
    before = contents(run)
    code, text = train(tmp_path, "--resume", str(run), "--budget", "updates=9")
    assert code == 2
    assert "does not hold rounds 1 to 8" in text
    assert contents(run) == before


def test_two_runs_in_one_directory_and_a_termination_signal(run: Path, tmp_path: Path) -> None:
    log = tmp_path / "first.log"
    log.write_text("")
    pid = kill_test.start(["--resume", str(run), "--budget", "updates=500"], log, watched=tmp_path / "nothing")
    try:
        deadline = time.monotonic() + 60
        while len(events(run, "round")) <= 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        code, text = train(tmp_path, "--resume", str(run), "--budget", "updates=500")
        assert code == 2
        assert f"Another process is training in {run}" in text
        code, text = train(tmp_path, *SHORT, "--output", str(run))
        assert code == 2
        assert "holds another run" in text
    finally:
        os.kill(pid, signal.SIGTERM)
        assert kill_test.wait(pid) == 0
    assert f"Continue: dopr train --resume {run}" in log.read_text()
    # The signal let the round end, and left a checkpoint of it.
    numbers = [e["round"] for e in events(run, "round")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert checkpoint.flaw(run / "checkpoints" / f"checkpoint-{numbers[-1]}") is None
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("limit", [3_000, 60_000, 4_000_000])
def test_a_full_disk_is_named_and_what_was_saved_stays(run: Path, tmp_path: Path, limit: int) -> None:
    """No file may grow beyond ``limit`` bytes: config, log, weights or optimizer state cannot be written to their end."""
    sizes = sorted(p.stat().st_size for p in (run / "checkpoints" / "checkpoint-8").iterdir())
    assert sizes[-1] > 4_000_000
    code, text = train(tmp_path, "--resume", str(run), "--budget", "updates=40", "--save-every", "2", limit=limit)
    assert code == 2, text
    assert "File too large" in text or "could not be written to its end" in text
    assert "Make room" in text
    kept = [p.name for p in checkpoint.checkpoints(run / "checkpoints") if checkpoint.flaw(p) is None]
    assert "checkpoint-8" in kept
    code, text = train(tmp_path, "--resume", str(run), "--budget", "updates=11")
    assert code == 0, text
    assert [e["round"] for e in events(run, "round")] == list(range(1, 12))


def test_a_directory_that_cannot_be_written_is_refused_at_once(tmp_path: Path, run: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, text = train(tmp_path, *SHORT, "--output", str(tmp_path / "file" / "run"))
    assert code == 2
    assert "Give another --output" in text
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    for path in [tmp_path, *tmp_path.parents, *run.rglob("*")]:
        if (
            path.stat().st_uid == 0
            and path.is_relative_to(tempfile.gettempdir())
            and path != Path(tempfile.gettempdir())
        ):
            path.chmod(path.stat().st_mode | 0o055)
    before = contents(run)
    code, text = train(tmp_path, "--resume", str(run), "--budget", "updates=9", user=65534)
    assert code == 2
    assert f"{run} cannot be written: Permission denied" in text
    assert contents(run) == before


def test_what_a_start_that_was_killed_at_once_leaves_behind_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for name in (".probe.tmp", "config.json.tmp"):  # the kill test hit both moments
        (tmp_path / "run" / name).write_text("")
    code, text = train(tmp_path, *SHORT, "--budget", "updates=1", "--output", str(tmp_path / "run"))
    assert code == 0, text
