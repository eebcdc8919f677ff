"""benchmarks/searches.py: its page is what it computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("rule", "column"), [("dopr", 2), ("the rule before", 3)])
def test_the_page_holds_what_the_script_computes(monkeypatch: pytest.MonkeyPatch, rule: str, column: int) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import searches

    task = "SmolLM2's multiples"
    counts = [searches.successes(searches.RULES[rule], searches.TASKS[task], seed) for seed in range(searches.SEEDS)]
    row = next(line for line in searches.PAGE.read_text().splitlines() if line.startswith(f"| {task} "))
    mean, _, half = row.split("|")[column].strip().partition(" ± ")
    assert float(mean) == pytest.approx(np.mean(counts), abs=0.051)
    assert float(half) == pytest.approx(1.96 * np.std(counts, ddof=1) / len(counts) ** 0.5, abs=0.051)
