"""What a run reached and spent, for ``summary.json`` and the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dopr.budget import SPENT
from dopr.evaluate import Evaluation
from dopr.metrics import avg_at_n, paired_difference, proportion_interval
from dopr.report_bounds import probe_summary
from dopr.runlog import informative_share, read_events
from dopr.tasks.baselines import recorded_baseline
from dopr.train.prepare import Prepared
from dopr.train.rundir import CHECKPOINTS, FINAL

if TYPE_CHECKING:
    from dopr.train.callbacks import RunCallback


def summary_of(
    prepared: Prepared, trainer: Any, callback: RunCallback, after: Evaluation | None, directory: Path
) -> dict[str, Any]:
    """What ``summary.json`` holds.

    Args:
        prepared: Settings and problems of the run.
        trainer: After training.
        callback: It knows why the run ended.
        after: The last evaluation; ``None`` without held-out problems.
        directory: The run directory, with all events.
    """
    events = read_events(directory)
    rounds = [e for e in events if e["kind"] == "round"]
    evaluations = [e for e in events if e["kind"] == "eval"]
    baseline = recorded_baseline(prepared.settings)
    target = prepared.settings.target or (baseline["target"] if baseline else None)
    summary: dict[str, Any] = {
        "status": {"interrupted": "interrupted", SPENT: "finished"}.get(callback.reason, "stopped"),
        "reason": callback.reason, "model": prepared.settings.model, "data": prepared.settings.data,
        "strategy": prepared.settings.strategy, "skipped_updates": trainer.health.skipped, "spent": trainer.spent.as_dict(),
        "informative_share": informative_share((p["outcome"], p["rollouts"]) for e in rounds for p in e["picks"]),
        "rewards": {r.__name__: dict(getattr(r, "counts", {})) for r in prepared.rewards},
        "target": target, "reached": next((e["spent"] for e in evaluations if e["accuracy"] >= (target or 2)), None),
        "baseline": baseline, "checkpoint": f"{CHECKPOINTS}/{FINAL}", "probe": probe_summary(events),
    }  # fmt: skip
    if after is not None:
        summary |= {"before": _ends(evaluations[0]), "after": _ends(evaluations[-1])}
    if after is not None and len(first := _per_problem(evaluations[0])) == len(after.correct):
        difference = paired_difference(first, avg_at_n(after.correct))
        summary["difference"] = {"estimate": difference.estimate, "low": difference.low, "high": difference.high}
    return summary


def _per_problem(event: dict[str, Any]) -> NDArray[np.float64]:
    """Accuracy of each held-out problem in an evaluation's event."""
    return np.array(event["correct"], np.float64) / event["samples"]


def _ends(event: dict[str, Any]) -> dict[str, Any]:
    ends = {key: event[key] for key in ("accuracy", "low", "high", "n")}
    if "greedy" in event:
        decoded = proportion_interval(sum(event["greedy"]), len(event["greedy"]))
        ends["greedy"] = {"accuracy": decoded.estimate, "low": decoded.low, "high": decoded.high}
    return ends
