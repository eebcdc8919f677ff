"""The suite's figure, and the batch reference's figures that the package carries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from suite import ARMS, BATCH, OURS, ROOT, Results, Stored
from suite_numbers import end, spent, target_of

from dopr.compare.results import CURVE, RunResult, spent_interval
from dopr.metrics import over_seeds

FIGURE = ROOT / "docs" / "results" / "suite.svg"
BASELINES = ROOT / "src" / "dopr" / "assets" / "baselines.json"


def write_baselines(worlds: Results) -> None:
    """Figures of the batch reference, for `dopr train` to print; worlds without results keep theirs."""
    stored = json.loads(BASELINES.read_text())
    for name, arms in worlds.items():
        target = target_of(arms)
        if target is None or spent_interval(spent(arms[BATCH], target, "rollouts")) is None:  # too few seeds got there
            continue
        stored["worlds"][name] = baseline_entry(arms[BATCH], target)
        stored["command"] = "python benchmarks/suite.py"
    BASELINES.write_text(json.dumps(stored, indent=1) + "\n")


def baseline_entry(kept: Stored, target: float) -> dict[str, Any]:
    def mean(value: Callable[[RunResult], float]) -> float:
        return float(np.mean([value(run) for run in kept.runs]))

    accuracy = over_seeds([run.correct.mean() for run in kept.runs], least=0.0)
    grid = np.linspace(0, min(end(run, "rollouts") for run in kept.runs), 41)
    return {
        "name": BATCH, "learning_rate": kept.rate, "seeds": len(kept.runs), "target": round(target, 4),
        "before": mean(lambda run: run.curve[0, CURVE.index("accuracy")]),
        **{c: spent_interval([run.spent_at(target, c) for run in kept.runs]) for c in ("rollouts", "tokens", "seconds")},
        "end": {
            "accuracy": {"estimate": accuracy.estimate, "low": accuracy.low, "high": accuracy.high},
            **{c: mean(lambda run, c=c: end(run, c)) for c in ("rollouts", "tokens", "seconds", "updates")},
        },
        "curve": [[round(float(at)), round(mean(lambda run, at=at: run.accuracy_at("rollouts", at)), 4)] for at in grid],
    }  # fmt: skip


def draw(worlds: Results) -> None:
    """Accuracy against rollouts: mean over seeds, the range over seeds behind dopr and the reference."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dopr"
    from matplotlib import pyplot as plt

    shown = [arm.label for arm in ARMS if arm.group == "baseline"]
    rows = -(-(len(worlds) + 1) // 3)  # three side by side, the last one for the legend
    fig, axes = plt.subplots(rows, 3, figsize=(13, 4 * rows), squeeze=False)
    for ax in axes.flat[len(worlds) :]:
        ax.axis("off")
    for ax, (name, arms) in zip(axes.flat, worlds.items(), strict=False):
        for colour, label in enumerate(shown):
            if label not in arms:
                continue
            runs = arms[label].runs
            grid = np.geomspace(40, min(end(run, "rollouts") for run in runs), 60)
            curves = np.array([[run.accuracy_at("rollouts", at) for at in grid] for run in runs])
            bold = label in (OURS, BATCH)
            ax.plot(
                grid, curves.mean(0), label=label, color=f"C{colour}", lw=2.4 if bold else 1.1, zorder=3 if bold else 2
            )
            if bold:
                ax.fill_between(grid, curves.min(0), curves.max(0), color=f"C{colour}", alpha=0.15, lw=0)
        target = target_of(arms)
        if target is not None:
            ax.axhline(target, color="grey", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel="rollouts", title=name, ylim=(0, 1))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("held-out accuracy")
    axes.flat[-1].legend(*axes[0][0].get_legend_handles_labels(), frameon=False, loc="center")
    fig.tight_layout()
    fig.savefig(FIGURE, metadata={"Date": None})
