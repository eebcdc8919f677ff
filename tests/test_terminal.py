"""Names that users give, shown on a terminal as they are: brackets in them are no markup."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from dopr.cli.compare import run_command
from dopr.cli.show import eval_table, sets_table, train_table
from dopr.compare import run as compare_run
from dopr.compare.results import RunResult, summarise
from dopr.config import CompareSettings

NAME = "data[bold]/[/x].jsonl"


def shown(table: Table) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_tables_of_runs_and_evaluations_show_names_as_they_are() -> None:
    spent = {"rollouts": 1, "tokens": 1, "seconds": 1, "updates": 1}
    summary = {"strategy": "my[bold]:Rule", "data": NAME, "spent": spent, "baseline": None, "target": None}
    assert f"my[bold]:Rule on {NAME}" in shown(train_table(summary))
    value = {"estimate": 0.5, "low": 0.4, "high": 0.6}
    one: dict[str, Any] = {"metrics": {"avg@1": value}, "problems": 3, "truncated_share": 0.0, "mean_tokens": 4.0}
    assert NAME in shown(eval_table(one, NAME))
    sets = shown(sets_table({"set[/y]": one}, "m[red]"))
    assert "set[/y]" in sets
    assert "m[red]" in sets


def test_a_comparison_shows_names_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    curve = np.array([[0, 0, 0.0, 0.2, 0.1, 0], [100, 700, 1.5, 0.5, 0.2, 3]])
    one = RunResult(seed=0, curve=curve, correct=np.full(50, 0.5), informative=0.5, entropy=0.2, updates=9)
    summary = summarise({"a": [one] * 2, "my[bold]:Rule": [one] * 2}, reference="a")

    def finished(settings: CompareSettings, *, command: str, say: Any) -> compare_run.Comparison:
        say(f"a run on {NAME}")
        meta = {"data": NAME, "budget": "rollouts=100", "left_out": ["[/z]"]}
        return compare_run.Comparison(directory=tmp_path, summary=summary, meta=meta)

    monkeypatch.setattr(compare_run, "compare", finished)
    monkeypatch.setenv("COLUMNS", "200")
    run_command(CompareSettings(strategies=("a",)))
    text = capsys.readouterr().out
    assert f"a run on {NAME}" in text
    assert f"{NAME}, rollouts=100" in text
    assert "my[bold]:Rule" in text
    assert "Left out for lack of metadata: [/z]." in text
