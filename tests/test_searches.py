"""benchmarks/searches.py: its page is what it computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("rule", ["dopr", "of 2026-11-27", "before"])
@pytest.mark.parametrize(
    ("measure", "task"), [("successes", "SmolLM2's multiples"), ("first", "one locked cluster, others .5")]
)
def test_the_page_holds_what_the_script_computes(
    monkeypatch: pytest.MonkeyPatch, rule: str, measure: str, task: str
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import searches

    chances = (searches.TASKS | searches.FIRST)[task]
    found = [getattr(searches, measure)(searches.RULES[rule], chances, seed) for seed in range(searches.SEEDS)]
    row = next(line for line in searches.PAGE.read_text().splitlines() if line.startswith(f"| {task} "))
    mean, _, half = row.split("|")[2 + list(searches.RULES).index(rule)].strip().partition(" ± ")
    assert float(mean) == pytest.approx(np.mean(found), abs=0.051)
    assert float(half) == pytest.approx(1.96 * np.std(found, ddof=1) / len(found) ** 0.5, abs=0.051)
