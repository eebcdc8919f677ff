"""The README's tables, from the stored results: python benchmarks/readme.py (part of `make docs`; a test compares).

Each stands between `<!-- NAME: ... -->` and `<!-- end NAME -->`; everything else of the README is written by hand.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

from suite import BATCH, ONE, OURS, ROOT, TUNED, Results, load
from suite_numbers import ratio_to, spent, target_of

from dopr.compare.page import number
from dopr.compare.results import mean_over, spent_interval
from dopr.compare.scores import Ratio
from dopr.tasks.worlds import WORLD_NAMES

sys.path.insert(0, str(Path(__file__).resolve().parent / "smollm2"))
from fresh import NAME, TASKS, rows_of

README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"


def down(value: float) -> str:
    """Rounded down, for a ratio is a claim: two digits, or whole from 10 on."""
    return f"{math.floor(value):,}" if value >= 10 else f"{math.floor(10 * value) / 10:.1f}"


def times(ratio: Ratio | None) -> str:
    """``89x [63, 108]``, with a plus where the other method was not there after its whole budget."""
    if ratio is None or ratio.estimate == 0:
        return "not reached"
    return f"{down(ratio.estimate)}x{'+' if ratio.at_least else ''} [{down(ratio.low)}, {down(ratio.high)}]"


def suite_table(results: Results) -> list[str]:
    """A row for every world."""
    rows = [
        "| world | dopr's rollouts | fewer than batch GRPO 64 x 8 | than batch GRPO of tuned size | than one random prompt | less time than 64 x 8 | final accuracy of dopr, 64 x 8 |",
        "|---|---|---|---|---|---|---|",
    ]
    for world, arms in ((name, results[name]) for name in WORLD_NAMES if name in results):
        target = target_of(arms)
        if target is None or OURS not in arms:
            continue
        ends = [f"{mean_over([run.correct for run in arms[label].runs]).estimate:.0%}" for label in (OURS, BATCH)]
        cells = [world, number(spent_interval(spent(arms[OURS], target, "rollouts")))]
        cells += [times(ratio_to(arms, other, OURS, target)) for other in (BATCH, TUNED, ONE)]
        cells += [times(ratio_to(arms, BATCH, OURS, target, "seconds")), ", ".join(ends)]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def smollm2_table() -> list[str]:
    """The tables of the page of fresh problem sets."""
    tables = [
        [f"**{TASKS[task][1]}**", "", *rows_of(results), ""]
        for task, results in json.loads((RESULTS / f"{NAME}.json").read_text()).items()
    ]
    return [line for table in tables for line in table][:-1]


def filled(text: str) -> str:
    """The README with its tables made again."""
    for name, rows in (("suite", suite_table(load())), ("smollm2", smollm2_table())):
        parts = re.split(rf"(<!-- {name}: [^\n]*-->\n|<!-- end {name} -->)", text)
        if len(parts) != 5:
            raise SystemExit(
                f"README.md needs one place for the table {name}, from <!-- {name}: ... --> to <!-- end {name} -->."
            )
        before, start, _, end, after = parts
        text = before + "\n".join([start, *rows, "", end]) + after
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
