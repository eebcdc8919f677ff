"""What the files of a run directory say, read tolerantly: an interrupted run has a report too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dopr.errors import RunError
from dopr.report_figures import OUTCOMES, PickRow
from dopr.report_html import number
from dopr.runlog import CONFIG, EVENTS, SUMMARY, read_events, read_json


@dataclass(frozen=True)
class RunRecord:
    """What the files of a run directory say."""

    name: str
    config: dict[str, Any]
    summary: dict[str, Any]
    events: dict[str, list[dict[str, Any]]]
    picks: list[PickRow]
    notices: list[str] = field(default_factory=list)

    @property
    def spent(self) -> dict[str, Any]:
        """Totals: the summary's, else those of the last event that carries any."""
        totals = _mapping(self.summary, "spent")
        for kind in ("eval", "round"):
            for event in self.events.get(kind, [])[-1:]:
                last = _mapping(event, "spent")
                if not self.summary and (number(last.get("rollouts")) or 0) >= (number(totals.get("rollouts")) or 0):
                    totals = last
        return totals

    @property
    def evals(self) -> list[tuple[float, float, float | None, float | None]]:
        """(rollouts, accuracy, low, high) of every evaluation in order, before and after included."""
        points: dict[tuple[float, bool], Mapping[str, Any]] = {}
        for part, rollouts in (
            (self.summary.get("before"), 0),
            (self.summary.get("after"), self.spent.get("rollouts")),
        ):
            if isinstance(part, Mapping) and number(part.get("accuracy")) is not None:
                points[number(rollouts) or 0.0, False] = part
        for event in self.events.get("eval", []):
            if number(event.get("accuracy")) is not None:  # at a target one that reached it and another one after it
                points[number(_mapping(event, "spent").get("rollouts")) or 0.0, bool(event.get("redrawn"))] = event
        return [
            (at, float(p["accuracy"]), number(p.get("low")), number(p.get("high")))
            for (at, _), p in sorted(points.items(), key=lambda item: item[0])
        ]


def read_run(directory: Path) -> RunRecord:
    """Read a run directory; what is missing or incomplete becomes a notice.

    Raises:
        RunError: no such directory, none of a run's files in it, or one of them damaged.
    """
    if not directory.is_dir():
        raise RunError(f"There is no run directory {str(directory)!r}. Give the directory that a run wrote.")
    held = {path.name for path in directory.iterdir()}
    if not held & {EVENTS, CONFIG, SUMMARY}:
        shown = ", ".join(sorted(held)[:8]) or "nothing"
        raise RunError(
            f"{str(directory)!r} is not a run directory: it has no {EVENTS}, {CONFIG} or {SUMMARY}. It holds {shown}."
        )
    notices: list[str] = []
    parts: dict[str, dict[str, Any]] = {}
    for name in (CONFIG, SUMMARY):
        value = read_json(directory / name) if name in held else {}
        parts[name] = value if isinstance(value, dict) else {}
    if SUMMARY not in held:
        notices.append(
            f"The run has no {SUMMARY}: it was interrupted, or it is still going on. These are its numbers so far."
        )
    events: dict[str, list[dict[str, Any]]] = {}
    if EVENTS in held:
        read = read_events(directory)
        with (directory / EVENTS).open("rb") as file:
            skipped = sum(bool(line.strip()) for line in file) - len(read)
        if skipped:
            notices.append(
                f"The last line of {EVENTS} is incomplete and was skipped: the run was stopped while writing it."
            )
        for event in read:
            if isinstance(event, dict):
                events.setdefault(str(event.get("kind")), []).append(event)
    picks = [pick for event in events.get("round", []) for pick in _picks(event)]
    return RunRecord(directory.resolve().name, parts[CONFIG], parts[SUMMARY], events, picks, notices)


def _picks(event: Mapping[str, Any]) -> list[PickRow]:
    picks = event.get("picks")
    spent = number(_mapping(event, "spent").get("rollouts")) or 0.0
    return [
        PickRow(
            round=int(number(event.get("round")) or 0),
            prompt=str(pick.get("id")),
            success=number(pick.get("success")),
            outcome=pick["outcome"] if pick.get("outcome") in OUTCOMES else "unscorable",
            rollouts=int(number(pick.get("rollouts")) or 0),
            tokens=int(number(pick.get("tokens")) or 0),
            spent=spent,
            skill=None if pick.get("skill") is None else str(pick["skill"]),
            cluster=None if pick.get("cluster") is None else str(pick["cluster"]),
        )
        for pick in (picks if isinstance(picks, list) else [])
        if isinstance(pick, Mapping)
    ]


def _mapping(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return dict(value) if isinstance(value, Mapping) else {}
