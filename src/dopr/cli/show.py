"""Terminal output: progress while training, small tables at the end."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_WINDOW = 50  # rounds in the running averages
_LINE_EVERY = 15.0  # seconds between lines where there is no live terminal


class TrainProgress:
    """A live bar on a terminal, a line now and then elsewhere. Use as a context manager; call after every update."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._rewards: deque[float] = deque(maxlen=_WINDOW)
        self._mixed: deque[float] = deque(maxlen=_WINDOW)
        self._last_line = time.monotonic()
        self._seen = 0
        self._bar = Progress(
            SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=1.0)

    def __enter__(self) -> TrainProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, event: dict[str, Any], share: float) -> None:
        """Take the latest round's event and the share of the budget that is spent."""
        if event["round"] != self._seen:
            self._seen = event["round"]
            self._rewards += [p["success"] for p in event["picks"] if p["success"] is not None]
            self._mixed += [float(p["outcome"] == "mixed") for p in event["picks"] if p["rollouts"] > 1]
            if "warning" in event:
                self.console.print(f"[yellow]Warning:[/] {escape(event['warning'])}", highlight=False)
        spent = event["spent"]
        reward = sum(self._rewards) / len(self._rewards) if self._rewards else float("nan")
        informative = sum(self._mixed) / max(len(self._mixed), 1)
        text = (
            f"round {event['round']}  rollouts {spent['rollouts']:,.0f}  tokens {spent['tokens']:,.0f}  "
            f"reward {reward:.2f}  informative {informative:.0%}"
        )
        self._bar.update(self._task, completed=min(share, 1.0), description=text)
        if not self.console.is_terminal and time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            left = spent["seconds"] * (1 - share) / share if share else float("nan")
            self.console.print(
                f"{share:4.0%}  {text}  {spent['seconds']:.0f} s, about {left:.0f} s left", highlight=False
            )


def interval_text(part: dict[str, Any]) -> str:
    """``62.1% [56.0, 68.0]``."""
    return f"{part['accuracy']:.1%} [{100 * part['low']:.1f}, {100 * part['high']:.1f}]"


def train_table(summary: dict[str, Any]) -> Table:
    """Accuracy before and after, and what it cost, beside the recorded batch baseline where there is one."""
    spent, baseline = summary["spent"], summary["baseline"]
    table = Table(title=escape(f"{summary['strategy']} on {summary['data']}"), title_justify="left", min_width=60)
    table.add_column("")
    table.add_column("this run", justify="right")
    if baseline:
        table.add_column(escape(f"{baseline['name']}, recorded"), justify="right")

    def row(name: str, mine: str, theirs: str = "") -> None:
        table.add_row(name, mine, *([theirs] if baseline else []))

    end = baseline["end"] if baseline else {}
    if "before" in summary:
        n = summary["after"]["n"]
        row(
            f"accuracy before ({n} held-out problems)",
            interval_text(summary["before"]),
            _of(baseline, "before", "{:.1%}"),
        )
        row("accuracy after", interval_text(summary["after"]), _of(end, "accuracy", "{:.1%}"))
        for when in ("before", "after"):
            if decoded := summary[when].get("greedy"):
                row(f"greedy decoding {when}", interval_text(decoded))
    row("rollouts", f"{spent['rollouts']:,}", _of(end, "rollouts", "{:,.0f}"))
    row("tokens generated", f"{spent['tokens']:,}", _of(end, "tokens", "{:,.0f}"))
    row("seconds of training", f"{spent['seconds']:,.0f}", _of(end, "seconds", "{:,.0f}"))
    row("updates", f"{spent['updates']:,}", _of(end, "updates", "{:,.0f}"))
    if summary["target"]:
        mine = summary["reached"]
        row(f"rollouts to {summary['target']:.0%} accuracy", f"{mine['rollouts']:,}" if mine else "not reached",
            _of(baseline, "rollouts", "{:,.0f}"))  # fmt: skip
    return table


def _of(part: dict[str, Any] | None, key: str, form: str) -> str:
    value = (part or {}).get(key)
    if value is None:
        return ""
    if isinstance(value, dict):
        # Recorded without an upper end where a seed never got there.
        high = "never" if value["high"] is None else form.format(value["high"])
        return f"{form.format(value['estimate'])} [{form.format(value['low'])}, {high}]"
    return form.format(value)


def eval_table(summary: dict[str, Any], title: str) -> Table:
    """The metrics of an evaluation with their 95 % intervals."""
    table = Table(title=escape(title), title_justify="left")
    for name in ("metric", "value", "95 % interval"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, interval in summary["metrics"].items():
        table.add_row(escape(name), f"{interval['estimate']:.1%}", f"{interval['low']:.1%} to {interval['high']:.1%}")
    return table


def sets_table(summaries: dict[str, dict[str, Any]], title: str) -> Table:
    """One row per problem set: its metrics with their 95 % intervals, and what was generated."""
    table = Table(title=escape(title), title_justify="left")
    metrics = list(dict.fromkeys(name for summary in summaries.values() for name in summary["metrics"]))
    table.add_column("set")
    for name in ("problems", *metrics, "cut off", "tokens each"):
        table.add_column(name, justify="right")
    for name, summary in summaries.items():
        shown = []
        for metric in metrics:
            part = summary["metrics"].get(metric)
            shown.append(f"{part['estimate']:.1%} [{100 * part['low']:.1f}, {100 * part['high']:.1f}]" if part else "")
        table.add_row(
            escape(name),
            f"{summary['problems']:,}",
            *shown,
            f"{summary['truncated_share']:.0%}",
            f"{summary['mean_tokens']:,.0f}",
        )
    return table
