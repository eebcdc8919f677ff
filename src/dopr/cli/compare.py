"""``dopr compare`` on a terminal."""

from __future__ import annotations

import shlex
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dopr.cli.ignored import refuse_ignored, refuse_of_one_run
from dopr.compare.page import difference_of, difference_title, number, ordered, percent
from dopr.config import CompareSettings


def run_command(settings: CompareSettings) -> None:
    """Compare, and print the table."""
    refuse_of_one_run(settings)
    data = settings.data if settings.world is None else f"world:{settings.world}"
    refuse_ignored(settings, [source for source in (data, settings.eval_data) if source is not None])
    from dopr.compare.run import FIGURE, PAGE, RESULTS, compare

    console = Console()
    command = shlex.join(["dopr", *sys.argv[1:]])
    outcome = compare(
        settings, command=command, say=lambda text: console.print(text, highlight=False, soft_wrap=True, markup=False)
    )
    summary = outcome.summary
    goal = summary["targets"][-1]
    table = Table(
        title=f"{escape(str(outcome.meta['data']))}, {outcome.meta['budget']}, {summary['seeds']} seeds, before {summary['start']:.1%}",
        title_justify="left",
    )
    for title in (
        "arm",
        "final accuracy",
        difference_title(summary),
        f"rollouts to {goal:.0%}",
        "informative",
    ):
        table.add_column(escape(title), justify="left" if title == "arm" else "right")
    for name in ordered(summary):
        row = summary["arms"][name]
        difference = "reference"
        if name != summary["reference"]:
            gap, verdict = difference_of(summary, name)
            difference = percent(gap, "+")
            difference += "" if verdict != "no difference shown" else ", no difference shown"
        table.add_row(
            escape(name),
            percent(row["final"]),
            difference,
            number(row["to_target"][-1]["rollouts"]),
            f"{row['informative']:.0%}",
        )
    console.print(table)
    if outcome.meta["left_out"]:
        console.print(
            f"Left out for lack of metadata: {', '.join(outcome.meta['left_out'])}.", highlight=False, markup=False
        )
    for name in (PAGE, FIGURE, RESULTS):
        if (outcome.directory / name).exists():
            console.print(f"{outcome.directory / name}", highlight=False, soft_wrap=True, markup=False)
