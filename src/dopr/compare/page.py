"""The comparison for people: a page with its table, and the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dopr.compare.results import CURVE, RunResult


def number(cell: Mapping[str, float | None] | None, form: str = ",.0f") -> str:
    """``1,368 [992, 2,072]``, or that it was not reached."""
    if cell is None or cell["estimate"] is None:
        return "not reached"
    high = "never" if cell["high"] is None else format(cell["high"], form)
    return f"{cell['estimate']:{form}} [{cell['low']:{form}}, {high}]"


def cell(text: str) -> str:
    """Text inside a Markdown table, where a bar would end the cell."""
    return text.replace("|", "\\|")


def percent(cell: Mapping[str, float], sign: str = "") -> str:
    """``62.1% [56.0, 68.0]``."""
    return f"{cell['estimate']:{sign}.1%} [{100 * cell['low']:{sign}.1f}, {100 * cell['high']:{sign}.1f}]"


def difference_of(summary: Mapping[str, Any], name: str) -> tuple[Mapping[str, float], str]:
    """An arm's difference to the reference and its verdict: at the end, or where all had spent as much if the ends differ."""
    row = summary["arms"][name]
    source = row["equal"][summary["unit"]] if summary["unequal"] else row
    return source["difference"], source["verdict"]


def difference_title(summary: Mapping[str, Any]) -> str:
    """What ``difference_of`` gives."""
    unit = summary["unit"]
    at = f" at {summary['equal'][unit]:,.0f} {unit}" if summary["unequal"] else ""
    return f"difference to {summary['reference']}{at}"


def _differences_text(summary: Mapping[str, Any]) -> str:
    if not summary["unequal"]:
        return f"Differences are paired by seed, against {summary['reference']}; their intervals are Student's t over seeds."
    return (
        f"What the arms spent differs, so differences to {summary['reference']} are not those at the end: they are paired by seed, on "
        f"interpolated curves, at the {summary['unit']} that every arm had, and in brackets at the tokens that every arm had."
    )


def ordered(summary: Mapping[str, Any]) -> list[str]:
    """Arms from the highest to the lowest final accuracy."""
    return sorted(summary["arms"], key=lambda name: -summary["arms"][name]["final"]["estimate"])


def markdown(summary: Mapping[str, Any], meta: Mapping[str, Any], figure: str | None) -> str:
    """The page.

    Args:
        summary: From ``results.summarise``.
        meta: ``command``, ``budget``, ``data``, ``model``, and ``rates`` with each arm's chosen learning rate, grid
            and whether the choice is at its edge.
        figure: File name of the figure beside the page.
    """
    reference, goals = summary["reference"], summary["targets"]
    lines = [
        f"# Strategies on {meta['data']}, {meta['budget']}", "",
        f"    {meta['command']}", "",
        f"Policy {meta['model']}; {summary['seeds']} reported seeds per arm, {summary['problems']} held-out problems each. "
        f"Before training: {summary['start']:.1%}. Intervals of final accuracies are 95 % bootstrap over seeds "
        f"and problems, those at equal rollouts or tokens Student's t over seeds. Costs to a target are medians over seeds with their range. {_differences_text(summary)} Learning rates: {meta['tuning']}", "",
    ]  # fmt: skip
    if figure:
        lines += [f"![accuracy against rollouts and against tokens]({figure})", ""]
    head = ["arm", "final accuracy", difference_title(summary), "verdict"]
    head += [f"rollouts to {goal:.0%}" for goal in goals] + [
        f"tokens to {goals[-1]:.0%}",
        f"seconds to {goals[-1]:.0%}",
    ]
    decoded = any(row.get("greedy") for row in summary["arms"].values())
    head += ["greedy decoding (its gain)"] * decoded
    head += [
        f"at {summary['equal']['tokens']:,.0f} tokens",
        "worst skill",
        "informative",
        "entropy",
        "updates",
        "learning rate",
    ]
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in ordered(summary):
        row = summary["arms"][name]
        rate = meta["rates"][name]
        difference, verdict = difference_of(summary, name)
        tokens = row["equal"]["tokens"]
        at_tokens = f"{tokens['accuracy']['estimate']:.1%}"
        if summary["unequal"] and name != reference:
            at_tokens += f" ({tokens['difference']['estimate']:+.1%})"
        chosen = "" if rate.get("arm", name) == name else f", {rate['arm']}"
        cells = [
            cell(name), percent(row["final"]), "" if name == reference else percent(difference, "+"), verdict,
            *(number(at["rollouts"]) for at in row["to_target"]),
            number(row["to_target"][-1]["tokens"]), number(row["to_target"][-1]["seconds"]),
            *[_greedy(row.get("greedy"))] * decoded,
            at_tokens, "" if row["worst_skill"] is None else f"{row['worst_skill']:.0%}",
            f"{row['informative']:.0%}", "" if row["entropy"] is None else f"{row['entropy']:.2f}",
            f"{row['updates']:,.0f}", f"{rate['rate']:g}{' (edge)' if rate['edge'] else ''}{chosen}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    if meta.get("left_out"):
        lines += ["", f"Left out, for lack of category or difficulty: {', '.join(meta['left_out'])}."]
    return "\n".join(lines) + "\n"


def _greedy(row: Mapping[str, Any] | None) -> str:
    """``79.2% (+12.0% [3.0, 21.0])``."""
    return f"{row['after']['estimate']:.1%} ({percent(row['gain'], '+')})" if row else ""


def draw(arms: Mapping[str, Sequence[RunResult]], reference: str, path: Path) -> None:
    """Accuracy against rollouts and against tokens: mean over seeds on a logarithmic axis, dopr and the reference bold."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dopr"
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(11.5, 4.6), sharey=True)
    colours = plt.get_cmap("tab20").colors
    for ax, column in zip(axes, ("rollouts", "tokens"), strict=True):
        at, accuracy = CURVE.index(column), CURVE.index("accuracy")
        for i, (name, results) in enumerate(arms.items()):
            end = min(float(r.curve[-1, at]) for r in results)
            grid = np.geomspace(max(1.0, end / 60), end, 60)
            mean = np.mean([np.interp(grid, r.curve[:, at], r.curve[:, accuracy]) for r in results], axis=0)
            bold = name in (reference, "dopr")
            ax.plot(grid, mean, label=name, color=colours[i % 20], lw=2.6 if bold else 1.1, zorder=3 if bold else 2)
        ax.set(xscale="log", xlabel=column)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("held-out accuracy")
    axes[1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)
