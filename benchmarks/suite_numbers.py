"""Arithmetic of the suite on one world's stored arms: costs to the target, ratios, equal budgets, scores, floors."""

from __future__ import annotations

from typing import Any

import numpy as np
from suite import BATCH, SEEDS, Stored

from dopr import theory
from dopr.compare.results import CURVE, RunResult
from dopr.compare.scores import Ratio, cost_ratio, scores
from dopr.metrics import Interval, over_seeds
from dopr.tasks.tiny import measured_success
from dopr.tasks.worlds import world_info

World = dict[str, Stored]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def end(run: RunResult, column: str) -> float:
    """At the last evaluation."""
    return float(run.curve[-1, CURVE.index(column)])


def reaches(kept: Stored, budget: int) -> bool:
    """Whether every run was evaluated at the end of so many rollouts."""
    return all(end(run, "rollouts") >= budget for run in kept.runs)


def target_of(arms: World) -> float | None:
    """Final accuracy of the batch reference minus one point."""
    if BATCH not in arms:
        return None
    return float(np.mean([r.correct.mean() for r in arms[BATCH].runs])) - 0.01


def spent(kept: Stored, target: float, column: str) -> list[float]:
    """What each seed spent to the target; infinity where it never got there."""
    return [run.interpolated_spent(target, column) for run in kept.runs]


def ratio_to(arms: World, other: str, label: str, target: float, column: str = "rollouts") -> Ratio | None:
    """How many times more ``other`` spent than ``label`` to the target."""
    if other not in arms or label not in arms:
        return None
    budget = float(np.mean([end(run, column) for run in arms[other].runs]))
    mine = spent(arms[label], target, column)
    return cost_ratio(spent(arms[other], target, column), mine, budget=budget)


def at_equal(arms: World, label: str, column: str, limit: float) -> tuple[Interval, Interval | None]:
    """Accuracy at ``limit``, and its difference to the batch reference, paired by seed."""
    mine = np.array([run.accuracy_at(column, limit) for run in arms[label].runs])
    accuracy = over_seeds(mine, least=0.0)
    if BATCH not in arms or label == BATCH:
        return accuracy, None
    theirs = np.array([run.accuracy_at(column, limit) for run in arms[BATCH].runs])
    return accuracy, over_seeds(mine - theirs)


def scores_of(arms: World, budget: int) -> dict[str, Floats]:
    """Scores by seed, over so many rollouts, of each arm that has spent them; see ``dopr.compare.scores``."""
    arms = {label: kept for label, kept in arms.items() if reaches(kept, budget)}
    base = float(
        np.mean([kept.runs[i].curve[0, CURVE.index("accuracy")] for kept in arms.values() for i in range(SEEDS)])
    )
    return scores({label: [run.mean_accuracy(budget) for run in kept.runs] for label, kept in arms.items()}, base)


def floor_of(world: str, target: float) -> float:
    """T5: rollouts until enough skills have shown a first success."""
    info, measured = world_info(world), measured_success(world)
    found = theory.elicitation_floor(
        [measured[s.name].rate for s in info.skills], target, weights=[s.frequency for s in info.skills]
    )
    return found.rollouts
