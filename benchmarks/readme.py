"""The README's tables, from the stored results: python benchmarks/readme.py (part of `make docs`; a test compares).

Each stands between `<!-- NAME: ... -->` and `<!-- end NAME -->`; everything else of the README is written by hand.
"""

from __future__ import annotations

import json
import math
import re

import numpy as np
from suite import BATCH, ONE, OURS, ROOT, TUNED, Results, load
from suite_numbers import ratio_to, spent, target_of

from dopr.compare.page import number, percent
from dopr.compare.results import CURVE, RunResult, mean_over, spent_interval, summarise
from dopr.compare.scores import Ratio
from dopr.tasks.worlds import WORLD_NAMES

README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"
#: Families of problems for SmolLM2, and the names of the arms, in the table's order.
SMOLLM2 = {"sums": "single-digit sums", "multiples": "least common multiples"}
ONE_PROMPT = "random-one"
NAMES = {
    "dopr": "**dopr**",
    "dopr+option.random=true": "dopr, but prompts at random",
    ONE_PROMPT: "one random prompt",
    "uniform+prompts_per_round=8": "batch GRPO 8 x 8",
    "dapo+prompts_per_round=8": "DAPO's filter 8 x 8",
}


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
    """Every arm on every family of problems, on problem sets that the rule was not developed on."""
    head = [
        "problems",
        "policy",
        "accuracy",
        "by seed",
        "minus one random prompt",
        "greedy",
        "minus the base policy's greedy",
    ]
    rows = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for task, stored in json.loads((RESULTS / "smollm2_fresh.json").read_text()).items():
        runs = {arm: [RunResult.from_dict(run) for run in of] for arm, of in stored["runs"].items()}
        summary = summarise(runs, reference=ONE_PROMPT, unequal=True)
        base = [
            (run.curve[0, CURVE.index("accuracy")], run.greedy[0].mean())
            for run in runs[ONE_PROMPT]
            if run.greedy is not None
        ]
        start, decoded = (f"{np.mean(column):.1%}" for column in zip(*base, strict=True))
        rows.append(
            f"| {SMOLLM2[task]} | base policy | {start} | {', '.join(f'{one:.0%}' for one, _ in base)} | | {decoded} | |"
        )
        for arm in (name for name in NAMES if name in runs):
            row = summary["arms"][arm]
            against = "" if arm == ONE_PROMPT else percent(row["equal"]["rollouts"]["difference"], "+")
            by_seed = ", ".join(f"{run.correct.mean():.0%}" for run in runs[arm])
            cells = [SMOLLM2[task], NAMES[arm], percent(row["final"]), by_seed, against]
            rows.append(
                f"| {' | '.join([*cells, percent(row['greedy']['after']), percent(row['greedy']['gain'], '+')])} |"
            )
    return rows


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
