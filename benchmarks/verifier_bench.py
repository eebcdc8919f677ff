"""Verdicts per second of the maths verifier beside plain math-verify, in one run: `make bench`, or this file alone.

Plain math-verify runs as its README shows: gold and completion parsed and compared one after the other in this process.
Ours runs with its worker processes, in batches of 64 completions as in training, and one completion at a time. Both take
the same texts; each is timed on its second pass, with everything imported and every worker started.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dopr.tasks.answers import gold_text
from dopr.tasks.columns import field
from dopr.tasks.math_equal import quick
from dopr.tasks.rewards import resolve_rewards
from dopr.tasks.rows import read_path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT / "tests"))

Items = list[tuple[str, str]]  # (completion, gold)


def table_items() -> Items:
    """The table of verdicts, without the rows on which plain math-verify works for minutes."""
    from verdict_table import verdict_rows

    slow = ("9^{9^9}", "10^{10^{10", "(10^{10})!", "2^{2^{2", "\\sum", "5+5+")
    return [
        (row["completion"], row["gold"])
        for row in verdict_rows()
        if len(row["completion"]) < 10_000 and not any(mark in row["completion"] for mark in slow)
    ]


def real_items() -> dict[str, Items]:
    """Sets from the shared data folder, where it is present."""
    if not DATA.is_dir():
        return {}
    rows = [json.loads(line) for line in (DATA / "gsm8k_model_solutions.jsonl").read_text().splitlines()]
    math500 = [json.loads(line) for line in (DATA / "math500.jsonl").read_text().splitlines()]
    golds = [gold_text(row["answer"]) for row in math500]
    truths = [
        field(row.data, "reward_model.ground_truth") for row in read_path(DATA / "dsr_sub.parquet", split="train")
    ]
    golds += [gold_text(truth) for truth in truths if truth]
    pairs = [(f"so it is $\\boxed{{{a}}}$.", b) for a, b in itertools.pairwise(golds)]
    return {
        "GSM8K, model solutions": [(row["completion"], row["answer"]) for row in rows[:800]],
        "MATH-500, worked solutions": [(row["solution"], row["answer"]) for row in math500],
        "wrong answers that need algebra": [(t, g) for t, g in pairs if quick(g, t[14:-3]) is None][:400],
    }


def plain(items: Items) -> list[float]:
    from math_verify import parse, verify

    def judge(text: str, gold: str) -> float:
        boxed = gold if "\\boxed" in gold else f"\\boxed{{{gold}}}"
        return float(verify(parse(boxed), parse(text)))

    return [judge(text, gold) for text, gold in items]


def seconds(judge: Callable[[], Sequence[float | None]]) -> float:
    judge()
    started = time.perf_counter()
    judge()
    return time.perf_counter() - started


def verifier_times() -> None:
    (math,) = resolve_rewards(["math"], timeout=10.0)

    def ours(items: Items, size: int) -> list[float | None]:
        rewards: list[float | None] = []
        for k in range(0, len(items), size):
            part = items[k : k + size]
            rewards += math(completions=[text for text, _ in part], answer=[gold for _, gold in part])
        return rewards

    print(
        f"verdicts per second on {os.cpu_count()} cores      plain math-verify   batches of 64          one at a time"
    )
    for name, items in (real_items() | {"table of verdicts": table_items()}).items():
        slow, batches, single = (
            len(items) / seconds(judge)
            for judge in (
                lambda items=items: plain(items),
                lambda items=items: ours(items, 64),
                lambda items=items: ours(items, 1),
            )
        )
        print(
            f"{name:32s} {len(items):5d}  {slow:12,.0f}  {batches:10,.0f} ({batches / slow:6.1f}x)  {single:10,.0f} ({single / slow:6.1f}x)"
        )


if __name__ == "__main__":
    verifier_times()
