"""From run directories to numbers: what each arm reached, what it cost, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.metrics import Interval, over_seeds
from dopr.runlog import informative_share, read_events

_RESAMPLES = 2000
_ALIKE = 1.05  # ends that differ by less are ends of equal budgets: rounds are whole
#: What a point of a curve holds, in order.
CURVE = ("rollouts", "tokens", "seconds", "accuracy", "worst_skill", "updates")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One run, reduced to what a comparison needs.

    Attributes:
        seed: Its seed.
        curve: One row per evaluation, shape (evaluations, 6), columns as in ``CURVE``; no skills = NaN.
        correct: Share of correct samples per held-out problem at the end, shape (problems,).
        informative: Share of groups with differing rewards.
        entropy: Mean token entropy in nats of the last tenth of the rounds; NaN if unknown.
        updates: Optimizer steps.
        select: Share of the rounds' time that choosing prompts took; NaN if unknown.
        greedy: Whether each held-out problem is right by greedy decoding, before and after, shape (2, problems); ``None`` if
            unknown, or if the evaluations are greedy anyway.
    """

    seed: int
    curve: NDArray[np.float64]
    correct: NDArray[np.float64]
    informative: float
    entropy: float
    updates: int
    select: float = float("nan")
    greedy: NDArray[np.bool_] | None = None

    def end(self, column: str) -> float:
        """What was spent in ``column`` by its last evaluation."""
        return float(self.curve[-1, CURVE.index(column)])

    def spent_at(self, target: float, column: str) -> float:
        """Spent in ``column`` at the first evaluation that reaches ``target``; infinity if none does."""
        reached = np.flatnonzero(self.curve[:, CURVE.index("accuracy")] >= target)
        return float(self.curve[reached[0], CURVE.index(column)]) if len(reached) else float("inf")

    def interpolated_spent(self, target: float, column: str) -> float:
        """The same on the line from the evaluation before, which favours no spacing of the evaluations."""
        accuracy, cost = self.curve[:, CURVE.index("accuracy")], self.curve[:, CURVE.index(column)]
        reached = np.flatnonzero(accuracy >= target)
        if not len(reached) or not reached[0]:
            return float(cost[0]) if len(reached) else float("inf")
        i = int(reached[0])
        return float(np.interp(target, accuracy[i - 1 : i + 1], cost[i - 1 : i + 1]))

    def accuracy_at(self, column: str, spent: float) -> float:
        """Accuracy when ``spent`` was spent in ``column``, between two evaluations on the line between them."""
        return float(np.interp(spent, self.curve[:, CURVE.index(column)], self.curve[:, CURVE.index("accuracy")]))

    def mean_accuracy(self, limit: float | None = None, column: str = "rollouts") -> float:
        """Area under the accuracy curve up to so many rollouts (all) or other units, divided by them: how fast and how far."""
        spent, accuracy = self.curve[:, CURVE.index(column)], self.curve[:, CURVE.index("accuracy")]
        end = float(spent[-1]) if limit is None else limit
        if end <= spent[0]:
            return float(accuracy[0])
        at = np.append(spent[spent < end], end)
        value = np.interp(at, spent, accuracy)
        return float((np.diff(at) * (value[1:] + value[:-1]) / 2).sum() / (end - at[0]))

    def as_dict(self) -> dict[str, Any]:
        """Compact plain values."""
        digits = (0, 0, 2, 4, 4, 0)
        curve = [
            [None if np.isnan(v) else round(float(v), d or None) for v, d in zip(row, digits, strict=True)]
            for row in self.curve
        ]
        return {
            "seed": self.seed, "curve": curve, "correct": [round(float(c), 4) for c in self.correct],
            "informative": round(self.informative, 4),
            "entropy": None if np.isnan(self.entropy) else round(self.entropy, 4), "updates": self.updates,
            "select": None if np.isnan(self.select) else round(self.select, 5),
            **({} if self.greedy is None else {"greedy": ["".join(map(str, row.astype(int))) for row in self.greedy]}),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RunResult:
        """Back from ``as_dict``."""
        curve = np.array([[np.nan if v is None else v for v in row] for row in stored["curve"]], np.float64)
        older = len(CURVE) - curve.shape[1]  # results stored before a column was added
        curve = np.pad(curve, ((0, 0), (0, older)), constant_values=np.nan)
        entropy, select = (float("nan") if stored.get(k) is None else float(stored[k]) for k in ("entropy", "select"))
        greedy = [[digit == "1" for digit in row] for row in stored.get("greedy", ())]
        return cls(
            seed=stored["seed"], curve=curve, correct=np.array(stored["correct"], np.float64),
            informative=stored["informative"], entropy=entropy, updates=stored["updates"], select=select,
            greedy=np.array(greedy) if greedy else None,
        )  # fmt: skip


def read_result(directory: Path, seed: int) -> RunResult:
    """Result of a finished run."""
    events = read_events(directory)
    evaluations = [e for e in events if e["kind"] == "eval"]
    rounds = [e for e in events if e["kind"] == "round"]
    late = [p["entropy"] for e in rounds[-max(1, len(rounds) // 10) :] for p in e["picks"] if p["entropy"] is not None]
    curve = [
        [e["spent"]["rollouts"], e["spent"]["tokens"], e["spent"]["seconds"], e["accuracy"],
         min(e["by_skill"].values()) if e["by_skill"] else np.nan, e["spent"]["updates"]]
        for e in evaluations
    ]  # fmt: skip
    ends = evaluations[0], evaluations[-1]
    last = ends[-1]
    seconds = rounds[-1]["spent"]["seconds"] if rounds else 0.0  # rounds with all their updates
    return RunResult(
        seed=seed,
        curve=np.array(curve, np.float64),
        correct=np.array(last["correct"], np.float64) / last["samples"],
        informative=informative_share((p["outcome"], p["rollouts"]) for e in rounds for p in e["picks"]) or 0.0,
        entropy=float(np.mean(late)) if late else float("nan"),
        updates=int(evaluations[-1]["spent"]["updates"]),
        select=sum(e["seconds"]["select"] for e in rounds) / seconds if seconds else float("nan"),
        greedy=np.array([e["greedy"] for e in ends], bool) if all("greedy" in e for e in ends) else None,
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


def tuning_score(runs: Sequence[RunResult], limit: float, unit: str) -> float:
    """What tuning compares: mean accuracy over ``limit`` of the budget's unit, over seeds.

    A run that ended before, at a target or for want of signal, counts as if it had stayed where it was: over what it spent
    alone one that soon got stuck would look good, and one that was soon there bad.
    """
    return float(np.mean([r.mean_accuracy(limit, unit) for r in runs]))


def choose_rate(runs: Mapping[float, Sequence[RunResult]], limit: float, unit: str) -> tuple[float, bool]:
    """The learning rate with the highest ``tuning_score``, and whether it lies at the grid's edge."""
    rates = sorted(runs)
    best = max(rates, key=lambda rate: tuning_score(runs[rate], limit, unit))
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
    arms: Mapping[str, Sequence[RunResult]], *, reference: str, targets: Sequence[float] = (), unequal: bool = False, unit: str = "rollouts",
) -> dict[str, Any]:  # fmt: skip
    """Everything the table shows, as plain values.

    Each arm's ``equal`` holds its accuracy, and the difference to the reference paired by seed, where every arm still
    has evaluations: at the least of the budget's unit, of rollouts and of tokens that any arm spent. Curves are interpolated
    there, a run that a target or want of signal ended stays where it was, and the intervals are Student's t over seeds.

    Args:
        arms: Results of every arm's reported runs, in the same order of seeds.
        reference: The arm that the others are compared with.
        targets: Accuracies whose cost is wanted; empty = see ``targets_of``.
        unequal: Whether the arms had different budgets, so that their ends cannot be compared; where they had spent different
            amounts of the budget's unit (a batch may overshoot a small budget) they are not compared either.
        unit: What the budget counts: ``rollouts``, ``tokens``, ``seconds`` or ``updates``.
    """
    goals = list(targets) or targets_of(arms[reference], arms)
    whole = {name: _whole(results, unit) for name, results in arms.items()}
    least = {
        column: min(run.end(column) for results in whole.values() for run in results)
        for column in dict.fromkeys((unit, "rollouts", "tokens"))
    }
    ends = [max(run.end(unit) for run in results) for results in whole.values()]
    unequal = unequal or max(ends) > _ALIKE * min(ends)
    rows = {}
    for name, results in arms.items():
        pairs = [a.correct - b.correct for a, b in zip(results, arms[reference], strict=True)]
        difference = over_seeds([float(pair.mean()) for pair in pairs])
        final = mean_over([r.correct for r in results])
        worst = [r.curve[-1, CURVE.index("worst_skill")] for r in results]
        rows[name] = {
            "final": _plain(final),
            "equal": {c: _at_equal(results, arms[reference], c, spent) for c, spent in least.items()},
            "difference": _plain(difference),
            "verdict": "reference" if name == reference else verdict(difference),
            "select": float(np.mean([r.select for r in results])),
            "worst_skill": None if np.isnan(worst).any() else float(np.mean(worst)),
            "greedy": greedy_of(results),
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
        "reference": reference, "targets": goals, "equal": least, "unequal": unequal, "unit": unit, "start": start,
        "seeds": len(arms[reference]), "problems": len(arms[reference][0].correct), "arms": rows,
    }  # fmt: skip


def _whole(results: Sequence[RunResult], unit: str) -> list[RunResult]:
    """Those of an arm's runs that went on as long as its longest, to a few in a hundred: a run that stopped ends no comparison."""
    longest = max(run.end(unit) for run in results)
    return [run for run in results if run.end(unit) * _ALIKE >= longest]


def greedy_of(results: Sequence[RunResult]) -> dict[str, Any] | None:
    """Accuracy of greedy decoding after training, and its gain over the same before, by Student's t over seeds."""
    decoded = [r.greedy for r in results if r.greedy is not None]
    if len(decoded) < len(results):
        return None
    return {
        "after": _plain(mean_over([after.astype(float) for _, after in decoded])),
        "gain": _plain(over_seeds([after.mean() - before.mean() for before, after in decoded])),
    }


def _at_equal(
    results: Sequence[RunResult], reference: Sequence[RunResult], column: str, spent: float
) -> dict[str, Any]:
    mine, theirs = (np.array([r.accuracy_at(column, spent) for r in runs]) for runs in (results, reference))
    difference = over_seeds(mine - theirs)
    return {
        "accuracy": _plain(over_seeds(mine, least=0.0)), "difference": _plain(difference),
        "verdict": "reference" if results is reference else verdict(difference),
    }  # fmt: skip


def _plain(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
