"""From run directories to numbers: what each arm reached, what it cost, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.metrics import Interval
from dopr.runlog import informative_share, read_events

_RESAMPLES = 2000
#: What a point of a curve holds, in order.
CURVE = ("rollouts", "tokens", "seconds", "accuracy", "worst_skill")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One run, reduced to what a comparison needs.

    Attributes:
        seed: Its seed.
        curve: One row per evaluation, shape (evaluations, 5), columns as in ``CURVE``; no skills = NaN.
        correct: Share of correct samples per held-out problem at the end, shape (problems,).
        informative: Share of groups with differing rewards.
        entropy: Mean token entropy in nats of the last tenth of the rounds; NaN if unknown.
        updates: Optimizer steps.
    """

    seed: int
    curve: NDArray[np.float64]
    correct: NDArray[np.float64]
    informative: float
    entropy: float
    updates: int

    def spent_at(self, target: float, column: str) -> float:
        """Spent in ``column`` at the first evaluation that reaches ``target``; infinity if none does."""
        reached = np.flatnonzero(self.curve[:, CURVE.index("accuracy")] >= target)
        return float(self.curve[reached[0], CURVE.index(column)]) if len(reached) else float("inf")

    def accuracy_within(self, column: str, limit: float) -> float:
        """Accuracy of the last evaluation that had spent at most ``limit`` in ``column``."""
        within = np.flatnonzero(self.curve[:, CURVE.index(column)] <= limit)
        return float(self.curve[within[-1] if len(within) else 0, CURVE.index("accuracy")])

    @property
    def mean_accuracy(self) -> float:
        """Mean over the run's evaluations, which are spread evenly over the budget: how fast and how far."""
        return float(self.curve[:, CURVE.index("accuracy")].mean())

    def as_dict(self) -> dict[str, Any]:
        """Compact plain values."""
        digits = (0, 0, 2, 4, 4)
        curve = [
            [None if np.isnan(v) else round(float(v), d) for v, d in zip(row, digits, strict=True)]
            for row in self.curve
        ]
        return {
            "seed": self.seed, "curve": curve, "correct": [round(float(c), 4) for c in self.correct],
            "informative": round(self.informative, 4),
            "entropy": None if np.isnan(self.entropy) else round(self.entropy, 4), "updates": self.updates,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RunResult:
        """Back from ``as_dict``."""
        curve = np.array([[np.nan if v is None else v for v in row] for row in stored["curve"]], np.float64)
        entropy = float("nan") if stored["entropy"] is None else float(stored["entropy"])
        return cls(
            seed=stored["seed"], curve=curve, correct=np.array(stored["correct"], np.float64),
            informative=stored["informative"], entropy=entropy, updates=stored["updates"],
        )  # fmt: skip


def read_result(directory: Path, seed: int) -> RunResult:
    """Result of a finished run."""
    events = read_events(directory)
    evaluations = [e for e in events if e["kind"] == "eval"]
    rounds = [e for e in events if e["kind"] == "round"]
    late = [p["entropy"] for e in rounds[-max(1, len(rounds) // 10) :] for p in e["picks"] if p["entropy"] is not None]
    curve = [
        [e["spent"]["rollouts"], e["spent"]["tokens"], e["spent"]["seconds"], e["accuracy"],
         min(e["by_skill"].values()) if e["by_skill"] else np.nan]
        for e in evaluations
    ]  # fmt: skip
    last = evaluations[-1]
    return RunResult(
        seed=seed,
        curve=np.array(curve, np.float64),
        correct=np.array(last["correct"], np.float64) / last["samples"],
        informative=informative_share((p["outcome"], p["rollouts"]) for e in rounds for p in e["picks"]) or 0.0,
        entropy=float(np.mean(late)) if late else float("nan"),
        updates=int(evaluations[-1]["spent"]["updates"]),
    )


def mean_over(values: Sequence[NDArray[np.float64]], seed: int = 0) -> Interval:
    """Mean of per-problem values over problems and seeds, with a 95 % bootstrap interval over both.

    Args:
        values: Per seed, the values of its held-out problems, shape (problems,) each.
        seed: Of the bootstrap.

    Seeds are resampled, and within each its problems. That counts the problems' noise twice, so with many seeds the
    interval is a little wide; with very few, a bootstrap over them is too narrow.
    """
    rng = np.random.default_rng(seed)
    means = np.empty((len(values), _RESAMPLES))
    for i, row in enumerate(values):
        means[i] = row[rng.integers(len(row), size=(_RESAMPLES, len(row)))].mean(axis=1)
    drawn = rng.integers(len(values), size=(len(values), _RESAMPLES))
    resampled = means[drawn, np.arange(_RESAMPLES)].mean(axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(np.mean([row.mean() for row in values])), float(low), float(high))


def spent_interval(values: Sequence[float]) -> dict[str, float | None] | None:
    """Median over seeds with their range; ``None`` where fewer than half of them got there."""
    middle = float(np.median(values))
    if not np.isfinite(middle):
        return None
    high = max(values)
    return {"estimate": middle, "low": min(values), "high": high if np.isfinite(high) else None}


def choose_rate(runs: Mapping[float, Sequence[RunResult]]) -> tuple[float, bool]:
    """The learning rate with the highest mean accuracy over the tuning runs, and whether it lies at the grid's edge."""
    rates = sorted(runs)
    best = max(rates, key=lambda rate: float(np.mean([r.mean_accuracy for r in runs[rate]])))
    return best, len(rates) > 1 and best in (rates[0], rates[-1])


def verdict(difference: Interval) -> str:
    """What the interval of a difference allows to say."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no difference shown"


def targets_of(reference: Sequence[RunResult], arms: Mapping[str, Sequence[RunResult]]) -> list[float]:
    """Half and 90 % of the way from the base policy to where the reference ends (to the best arm, if it gained nothing)."""
    column = CURVE.index("accuracy")
    start = float(np.mean([r.curve[0, column] for r in reference]))
    end = float(np.mean([r.correct.mean() for r in reference]))
    if end - start < 0.02:
        end = max(float(np.mean([r.correct.mean() for r in results])) for results in arms.values())
    return [round(start + share * (end - start), 3) for share in (0.5, 0.9)]


def summarise(
    arms: Mapping[str, Sequence[RunResult]], *, reference: str, targets: Sequence[float] = ()
) -> dict[str, Any]:
    """Everything the table shows, as plain values.

    Args:
        arms: Results of every arm's reported runs, in the same order of seeds.
        reference: The arm that the others are compared with.
        targets: Accuracies whose cost is wanted; empty = see ``targets_of``.
    """
    goals = list(targets) or targets_of(arms[reference], arms)
    least_tokens = min(float(r.curve[-1, CURVE.index("tokens")]) for results in arms.values() for r in results)
    rows = {}
    for name, results in arms.items():
        pairs = [a.correct - b.correct for a, b in zip(results, arms[reference], strict=True)]
        difference = mean_over(pairs)
        final = mean_over([r.correct for r in results])
        worst = [r.curve[-1, CURVE.index("worst_skill")] for r in results]
        rows[name] = {
            "final": _plain(final),
            "at_equal_tokens": float(np.mean([r.accuracy_within("tokens", least_tokens) for r in results])),
            "difference": _plain(difference),
            "verdict": "reference" if name == reference else verdict(difference),
            "worst_skill": None if np.isnan(worst).any() else float(np.mean(worst)),
            "informative": float(np.mean([r.informative for r in results])),
            "entropy": None
            if any(np.isnan(r.entropy) for r in results)
            else float(np.mean([r.entropy for r in results])),
            "updates": float(np.mean([r.updates for r in results])),
            "spent": {c: float(np.mean([r.curve[-1, CURVE.index(c)] for r in results])) for c in CURVE[:3]},
            "to_target": [
                {c: spent_interval([r.spent_at(goal, c) for r in results]) for c in CURVE[:3]} for goal in goals
            ],
        }
    start = float(np.mean([r.curve[0, CURVE.index("accuracy")] for r in arms[reference]]))
    return {
        "reference": reference, "targets": goals, "equal_tokens": least_tokens, "start": start,
        "seeds": len(arms[reference]), "problems": len(arms[reference][0].correct), "arms": rows,
    }  # fmt: skip


def _plain(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
