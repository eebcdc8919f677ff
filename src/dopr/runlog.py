"""The run directory's files: config.json, events.jsonl, summary.json. The report and every later analysis read only these."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dopr.errors import RunError

EVENTS, CONFIG, SUMMARY, REPORT = "events.jsonl", "config.json", "summary.json", "report.html"


def informative_share(groups: Iterable[tuple[str, int]]) -> float | None:
    """Share of ``mixed`` outcomes among groups given as (outcome, rollouts); ``None`` if there are none to judge.

    A group of one rollout cannot differ and is left out.
    """
    outcomes = [outcome for outcome, rollouts in groups if rollouts > 1]
    return outcomes.count("mixed") / len(outcomes) if outcomes else None


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


class EventLog:
    """Append-only JSON lines; each line is written whole and flushed, so a killed run loses at most the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._cut_broken_tail()
        self._earlier = self.size

    def set_earlier_aside(self) -> Path | None:
        """Move what an earlier run had left in the log to a file beside it; ``None`` if there is nothing."""
        if not 0 < self._earlier <= self.size:
            return None
        raw = self.path.read_bytes()
        target = unused_aside(self.path)
        target.write_bytes(raw[: self._earlier])
        write_lines(self.path, raw[self._earlier :].decode("utf-8").splitlines())
        self._earlier = 0
        return target

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event."""
        line = json.dumps({"kind": kind, **_plain(fields)}, allow_nan=False)
        size = self.size
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            with contextlib.suppress(OSError):  # on a full disk, leave no half line
                os.truncate(self.path, size)
            raise

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut_back(self, size: int, round_: int) -> None:
        """Drop what a resumed run repeats: everything beyond ``size`` bytes, the size when ``round_`` was the last round.

        Where the log is not the one that had this size, everything beyond ``round_``.
        """
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        before = _parse(raw[:size].decode("utf-8", "replace"), self.path)
        whole = len(raw) >= size and (size == 0 or raw[size - 1 : size] == b"\n")
        if whole and max((e.get("round", 0) for e in before), default=0) == round_:
            with self.path.open("r+b") as file:
                file.truncate(size)
        else:
            events = [e for e in read_events(self.path.parent, self.path.name) if e.get("round", 0) <= round_]
            write_lines(self.path, [json.dumps(e) for e in events])

    def _cut_broken_tail(self) -> None:
        if self.path.exists() and (raw := self.path.read_bytes()) and not raw.endswith(b"\n"):
            keep = raw.rfind(b"\n") + 1
            with self.path.open("r+b") as file:
                file.truncate(keep)


def unused_aside(log: Path) -> Path:
    """A name for the log of an earlier start, beside ``log``."""
    number = 1
    while (target := log.with_name(f"{log.stem}.before-restart-{number}{log.suffix}")).exists():
        number += 1
    return target


def read_events(run_dir: Path, name: str = EVENTS) -> list[dict[str, Any]]:
    """All events of a run, in order. A broken last line (a killed writer) is left out.

    Raises:
        RunError: There is no log, or a line other than the last is not an event in JSON.
    """
    path = Path(run_dir) / name
    if not path.exists():
        raise RunError(f"{run_dir} holds no {name}, so it is not a dopr run directory. Give the directory of a run.")
    return _parse(path.read_text(encoding="utf-8", errors="replace"), path)


def _parse(text: str, path: Path) -> list[dict[str, Any]]:
    lines = text.split("\n")
    events = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            if (
                not isinstance(event, dict)
                or not isinstance(event.get("kind"), str)
                or type(event.get("round", 0)) is not int
            ):
                raise ValueError("not an event")
        except (ValueError, RecursionError):
            if number >= len(lines) - 1:
                break
            raise RunError(
                f"{path}, line {number} is not an event in JSON; the log was damaged. Restore it or remove the line."
            ) from None
        events.append(event)
    return events


def read_config(run_dir: Path) -> dict[str, Any]:
    """The run's config.json: ``settings`` as they were given, and what they were ``resolved`` to.

    Raises:
        RunError: There is none, or it is not a run's.
    """
    path = Path(run_dir) / CONFIG
    if not path.exists():
        raise RunError(f"{run_dir} holds no {CONFIG}, so it is not a run directory. Give one that dopr train wrote.")
    config = read_json(path)
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in ("settings", "resolved")):
        raise RunError(f"{path} is not the config of a dopr run: it lacks settings or resolved. Give a run directory.")
    return config


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_lines(path, [json.dumps(_plain(value), indent=2, allow_nan=False)])


def write_lines(path: Path, lines: list[str]) -> None:
    """Write text lines atomically: a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RunError: Missing or broken file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON ({error}).") from None
