"""The report's figures, drawn by matplotlib as inline SVG that follows the page's light or dark colours."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.report_html import clean, escape, number

OUTCOMES = {"mixed": "#e39d2d", "all_wrong": "#d1495b", "all_right": "#2a9d8f", "unscorable": "#8c969f"}
"""Colour of each group outcome; a group's success is drawn on the scale all_wrong - mixed - all_right."""

# Colours that matplotlib writes and the page replaces by its own variables, so that dark mode works.
_INK, _LINE, _ACCENT, _MUTED, _SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {_INK: "ink", _LINE: "line", _ACCENT: "accent", _MUTED: "muted", _SECOND: "second"}
_VECTOR_POINTS = 2_500  # more points than this are drawn as one embedded picture
_CURVE_POINTS = 500
_LABELLED_ROWS = 40


@dataclass(frozen=True)
class PickRow:
    """One chosen group, as the figures and tables need it."""

    round: int
    prompt: str
    success: float | None
    outcome: str
    rollouts: int
    tokens: int
    spent: float
    """Rollouts spent in all when its round ended."""
    skill: str | None
    cluster: str | None


def available() -> bool:
    """Whether matplotlib can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def accuracy_figure(
    evals: Sequence[tuple[float, float, float | None, float | None]],
    picks: Sequence[PickRow],
    baseline: tuple[str, Sequence[tuple[float, float]]] | None,
    target: float | None,
) -> str | None:
    """Accuracy against rollouts with its interval, the training success, and the baseline's recorded curve.

    Args:
        evals: (rollouts, accuracy, low, high) of each evaluation.
        picks: all groups in order.
        baseline: its name and (rollouts, accuracy) curve.
        target: accuracy to mark.
    """
    x_train, y_train = _running_success(picks)
    if not evals and not len(x_train):
        return None
    with _drawing() as new:
        figure, (axes,) = new(7.8, 3.7)
        if baseline is not None:
            axes.plot(*zip(*baseline[1], strict=True), color=_MUTED, dashes=(4, 2), label=clean(baseline[0], 40))
        if len(x_train):
            axes.plot(x_train, y_train, color=_SECOND, lw=1.1, label="success of the chosen groups (running mean)")
        if evals:
            x, y = [e[0] for e in evals], [e[1] for e in evals]
            banded = [(e[0], e[2], e[3]) for e in evals if e[2] is not None and e[3] is not None]
            if len(banded) > 1:
                axes.fill_between(*zip(*banded, strict=True), color=_ACCENT, alpha=0.18, lw=0)
            elif banded:
                axes.vlines(*zip(*banded, strict=True), color=_ACCENT, alpha=0.5)
            axes.plot(x, y, color=_ACCENT, lw=2, marker="o", ms=4, label="accuracy on held-out problems")
        if target is not None:
            axes.axhline(target, color=_MUTED, lw=0.8, dashes=(1, 2))
            axes.annotate(
                f"target {target:.0%}",
                (0, target),
                xycoords=("axes fraction", "data"),
                xytext=(4, 3),
                textcoords="offset points",
                ha="left",
                color=_MUTED,
                fontsize=8.5,
            )
        own_end = max([e[0] for e in evals] + [float(v) for v in x_train[-1:]] + [1.0])
        longest = max([own_end] + ([p[0] for p in baseline[1]] if baseline else []))
        if longest > 4 * own_end:  # a baseline far to the right would squeeze the run into the corner
            starts = [v for v in [e[0] for e in evals] + [float(v) for v in x_train] if v > 0]
            axes.set_xscale("symlog", linthresh=min(starts, default=1.0), linscale=0.3)
            axes.xaxis.set_minor_locator(_no_ticks())
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        axes.set_xlim(left=0)
        highest = max([e[1] if e[3] is None else e[3] for e in evals] + [*y_train, target or 0.0, 0.1])
        axes.set_ylim(0, 1 if highest > 0.6 else 1.2 * highest)
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        axes.set_xlabel("rollouts")
        axes.grid(axis="y")
        legend = figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
        for label in legend.get_texts():
            label.set_parse_math(False)
        return _svg(figure, "Accuracy against rollouts")


def picks_figure(picks: Sequence[PickRow]) -> tuple[str, str] | None:
    """What was picked when: (SVG, what the rows are). A dot is a group; its colour is the group's success."""
    if not picks:
        return None
    kind, keys = _rows_of(picks)
    first: dict[str, list[float]] = {}
    seen: set[str] = set()
    for key, pick in zip(keys, picks, strict=True):
        values = first.setdefault(key, [])
        if pick.prompt not in seen and pick.success is not None:
            values.append(pick.success)
        seen.add(pick.prompt)
    order = sorted(first, key=lambda key: (float(np.mean(first[key])) if first[key] else -1.0, key), reverse=True)
    place = {key: i for i, key in enumerate(order)}
    x = np.array([pick.round for pick in picks])
    y = np.array([place[key] for key in keys])
    value = np.array([np.nan if pick.success is None else pick.success for pick in picks])
    scored = np.isfinite(value)
    labelled = len(order) <= _LABELLED_ROWS and kind != "prompt"
    with _drawing() as new:
        from matplotlib.colors import LinearSegmentedColormap

        figure, (axes,) = new(7.8, min(7.0, 1.4 + 0.17 * len(order)) if labelled else 4.2)
        colours = LinearSegmentedColormap.from_list("s", [OUTCOMES[k] for k in ("all_wrong", "mixed", "all_right")])
        size = float(np.clip(26_000 / max(len(picks), 1), 3, 26))
        raster = len(picks) > _VECTOR_POINTS
        axes.scatter(
            x[~scored], y[~scored], s=size, marker="x", color=OUTCOMES["unscorable"], lw=0.9, rasterized=raster
        )
        dots = axes.scatter(
            x[scored], y[scored], c=value[scored], s=size, cmap=colours, vmin=0, vmax=1, lw=0, rasterized=raster
        )
        bar = figure.colorbar(dots, ax=axes, fraction=0.03, pad=0.015, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels(["all wrong", "half", "all right"])
        bar.outline.set_visible(False)
        if labelled:
            axes.set_yticks(range(len(order)), [clean(key, 22) for key in order], parse_math=False, fontsize=8)
        else:
            axes.set_yticks([])
            axes.set_ylabel(f"{len(order):,} {kind}s, hardest at first on top")
        axes.set_ylim(-0.8, len(order) - 0.2)
        axes.set_xlim(*_padded(x))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        axes.set_xlabel("round")
        return _svg(figure, "What was picked when"), kind


def cost_figure(picks: Sequence[PickRow]) -> str | None:
    """Cumulative rollouts and tokens against rounds, split by what the groups turned out to be."""
    if not picks:
        return None
    rounds = np.array([pick.round for pick in picks])
    kept = np.unique(np.linspace(0, len(picks) - 1, min(len(picks), _CURVE_POINTS)).astype(int))
    with _drawing() as new:
        figure, panels = new(7.8, 3.1, 2)
        for axes, name in zip(panels, ("rollouts", "tokens"), strict=True):
            spent = np.array([getattr(pick, name) for pick in picks], dtype=np.float64)
            stacks = [np.cumsum(np.where([p.outcome == kind for p in picks], spent, 0.0)) for kind in OUTCOMES]
            x = np.concatenate([[rounds[0] - 1], rounds[kept]])
            axes.stackplot(x, [np.concatenate([[0.0], s[kept]]) for s in stacks], colors=list(OUTCOMES.values()), lw=0)
            axes.set_title(f"{name}, in all", loc="left", fontsize=10, color=_INK)
            axes.set_xlim(x[0], x[-1])
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
            axes.set_xlabel("round")
            axes.grid(axis="y")
        return _svg(figure, "Rollouts and tokens by outcome")


def _rows_of(picks: Sequence[PickRow]) -> tuple[str, list[str]]:
    for kind in ("skill", "cluster"):
        labels = [getattr(pick, kind) for pick in picks]
        if any(label is not None for label in labels):
            return kind, ["(none)" if label is None else label for label in labels]
    return "prompt", [pick.prompt for pick in picks]


def _running_success(picks: Sequence[PickRow]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Trailing mean of the groups' success over a twelfth of the run, thinned: (rollouts, success)."""
    scored = [(pick.spent, pick.success) for pick in picks if pick.success is not None]
    window = max(10, len(scored) // 12)
    if len(scored) <= window:
        return np.empty(0), np.empty(0)
    spent, success = np.array(scored, dtype=np.float64).T
    total = np.concatenate([[0.0], np.cumsum(success)])
    mean = (total[window:] - total[:-window]) / window
    kept = np.unique(np.linspace(0, len(mean) - 1, _CURVE_POINTS).astype(int))
    return spent[window - 1 :][kept], mean[kept]


def _padded(x: NDArray[Any]) -> tuple[float, float]:
    low, high = number(float(x.min())) or 0.0, number(float(x.max())) or 0.0
    pad = max(0.5, 0.01 * (high - low))
    return low - pad, high + pad


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


@contextmanager
def _drawing() -> Iterator[Any]:
    """Settings for the drawing, and a function (width, height, panels) -> (figure, axes); no global state is left."""
    import matplotlib
    from matplotlib.figure import Figure

    def new(width: float, height: float, panels: int = 1) -> tuple[Any, Any]:
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(1, panels, squeeze=False)[0]

    settings = {
        "svg.fonttype": "none",  # real text, in the page's font
        "svg.hashsalt": "dopr",  # the same run gives the same page
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _LINE,
        "xtick.color": _LINE,
        "ytick.color": _LINE,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "grid.color": _LINE,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9.5,
    }
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # only measured here; the browser has its fonts
        yield new


def _svg(figure: Any, label: str) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", dpi=170, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
