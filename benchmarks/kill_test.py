"""SIGKILL a run at random moments and resume it, again and again: does it always end as if nothing had happened?

Half of the kills come after a random time, half right before a random file operation in the run directory (opening a file
for writing, renaming, removing, truncating), so that the short moments of writing are hit as well. The heavy imports are
done once; every run is a fork of this process that enters through the command line's ``main``.

    python benchmarks/kill_test.py --kills 50 --write docs/results/kill_test.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

RUN = ["--save-every", "4", "--evaluations", "2", "--eval-problems", "32", "--size", "200", "--seed", "3"]
_WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")


@dataclass
class Result:
    """What the kills found; ``problems`` must stay empty."""

    kills: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    fresh_starts: int = 0
    restarts: int = 0
    finished: int = 0
    skipped_checkpoints: int = 0
    rounds_at_kill: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def preload() -> None:
    """The imports that every run needs."""
    import dopr.cli.main
    import dopr.cli.show
    import dopr.cli.train
    import dopr.train.run
    import dopr.train.trainer  # noqa: F401


def start(
    arguments: list[str], log: Path, *, watched: Path, kill_at: int | None = None, limit: int | None = None,
    user: int | None = None,
) -> int:  # fmt: skip
    """Fork a child that runs ``dopr train`` and return its pid.

    It dies before file operation ``kill_at`` in ``watched``, writes no file beyond ``limit`` bytes and runs as ``user``.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ["COLUMNS"] = "2000"  # no message is wrapped
        _count_operations(watched, log.with_suffix(".operations"), kill_at)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if user is not None:
            os.setuid(user)
        sys.argv = ["dopr", "train", *arguments]
        from dopr.cli.main import main

        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - the child's last words
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count_operations(watched: Path, file: Path, kill_at: int | None) -> None:
    count = 0
    prefix = f"{watched}{os.sep}"
    tally = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event in _WRITES or (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if not writes or not any(isinstance(a, str | Path) and str(a).startswith(prefix) for a in args[:2]):
            return
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.pwrite(tally, str(count).encode(), 0)

    sys.addaudithook(hook)


def wait(pid: int, kill_after: float | None = None) -> int:
    """Exit code of the child, or minus the signal; SIGKILL after ``kill_after`` seconds."""
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def events(run: Path) -> list[dict[str, Any]]:
    """Events of the log; every line but a last one without its end must be JSON."""
    path = run / "events.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines[:-1]]


def outcome(run: Path) -> dict[str, Any]:
    """What must come out the same: the policy's hash, rounds, evaluations, summary; times taken out."""
    rounds = [e for e in events(run) if e["kind"] == "round"]
    measured = [e for e in events(run) if e["kind"] in ("eval", "base", "probe")]
    summary = json.loads((run / "summary.json").read_text())
    weights = run / "checkpoints" / "final" / "model.safetensors"
    return {
        "policy": hashlib.sha256(weights.read_bytes()).hexdigest(),
        **_timeless({"rounds": rounds, "evaluations": measured, "summary": summary}),
    }  # fmt: skip


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k != "seconds"}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def check_log(run: Path) -> str | None:
    """What is wrong with the log of a killed run."""
    try:
        numbers = [e["round"] for e in events(run) if e["kind"] == "round"]
    except ValueError as error:
        return f"the log does not parse: {error}"
    return None if numbers == list(range(1, len(numbers) + 1)) else f"rounds {numbers}"


def kill_and_resume(
    folder: Path, *, kills: int, seed: int, updates: int, say: Any = print, after_each: Any = lambda result: None
) -> Result:
    """Run to the end once, then ``kills`` times to a random moment; ``folder`` is written to."""
    preload()
    rng, result = random.Random(seed), Result()
    fresh = [*RUN, "--budget", f"updates={updates}"]
    began = time.monotonic()
    code = wait(start([*fresh, "--output", str(folder / "whole")], folder / "whole.log", watched=folder / "whole"))
    length = time.monotonic() - began
    if code:
        result.problems.append(f"the uninterrupted run ended with {code}: {(folder / 'whole.log').read_text()[-500:]}")
        return result
    operations = int((folder / "whole.operations").read_text())
    expected = outcome(folder / "whole")
    say(f"Uninterrupted: {length:.1f} s, {operations} file operations, {len(expected['rounds'])} rounds")
    run = folder / "run"
    while (killed := sum(result.kills.values())) < kills or run.exists():
        log = folder / f"{killed}.log"
        log.write_text("")
        resuming = (run / "config.json").exists()
        result.resumes += resuming
        result.fresh_starts += not resuming
        by_time = rng.random() < 0.5
        last = killed >= kills
        # A resumed run is shorter; moments after its end simply let it finish.
        after = rng.uniform(0.0, length) if by_time and not last else None
        at = rng.randint(1, operations) if not by_time and not last else None
        arguments = ["--resume", str(run)] if resuming else [*fresh, "--output", str(run)]
        code = wait(start(arguments, log, watched=run, kill_at=at), after)
        text = log.read_text()
        result.restarts += "starts again from its first round" in text
        result.skipped_checkpoints += text.count("Skipped checkpoint-")
        if code == -signal.SIGKILL:
            result.kills["time" if by_time else "file operation"] += 1
            wrong = check_log(run)
            result.rounds_at_kill.append(len([e for e in events(run) if e["kind"] == "round"]) if wrong is None else -1)
        elif code == 0 or "has spent its budget" in text:  # the latter: killed between its summary and its report
            result.finished += 1
            found = outcome(run)
            wrong = next((f"{name} differs at the end" for name in expected if found[name] != expected[name]), None)
            if wrong is None:
                shutil.rmtree(run)
        else:
            wrong = f"exit code {code}: {text[-800:]}"
        if wrong is not None:
            result.problems.append(f"after kill {killed}: {wrong}")
            break
        after_each(result)
        say(
            f"kill {killed}: {'resumed' if resuming else 'started'}, code {code}, {result.rounds_at_kill[-1:]} rounds logged"
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    parser.add_argument("--keep", type=Path, help="work here and leave everything")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()

        def write(result: Result) -> None:
            figures = vars(result) | {"kills": dict(result.kills), "updates": args.updates, "seed": args.seed,
                                      "seconds": round(time.monotonic() - began)}  # fmt: skip
            if args.write:
                args.write.write_text(json.dumps(figures, indent=1) + "\n")

        result = kill_and_resume(folder, kills=args.kills, seed=args.seed, updates=args.updates, after_each=write)
        write(result)
    print(f"{sum(result.kills.values())} kills, {result.finished} equal ends, problems: {result.problems}")
    sys.exit(bool(result.problems))


if __name__ == "__main__":
    main()
