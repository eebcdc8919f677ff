"""The counts of benchmarks/revisits.py on pools where they can be told beforehand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from revisits import ROLLOUTS, spend

from dopr.selection.registry import make_selector
from dopr.selection.settings import Pick, SelectorConfig


def mixed(row: int, n: int) -> list[float]:
    return [float(i % 2) for i in range(n)]


@pytest.mark.parametrize(("pool", "seen"), [(1000, 0), (250, 125)])
def test_an_epoch_repeats_nothing(pool: int, seen: int) -> None:
    count = spend(make_selector("uniform", range(pool), SelectorConfig(prompts_per_round=5)), mixed)
    assert count == {"rollouts": ROLLOUTS, "groups": ROLLOUTS // 8, "seen before": seen, "surplus": 0}


def test_surplus_is_what_is_informative_and_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    selector = make_selector("dapo", range(2000), SelectorConfig(prompts_per_round=8))
    ask, rounds, informative = selector.ask, 0, 0

    def counted(exclude: Collection[int] = ()) -> list[Pick]:
        nonlocal rounds
        rounds += not exclude
        return ask(exclude)

    def draw(row: int, n: int) -> list[float]:
        nonlocal informative
        informative += row % 2 == 0
        return mixed(row, n) if row % 2 == 0 else [0.0] * n

    monkeypatch.setattr(selector, "ask", counted)
    count = spend(selector, draw)
    assert count["surplus"] == 8 * (informative - 8 * rounds) > 0  # an update has room for eight groups


@pytest.mark.parametrize("draw", [mixed, lambda row, n: [0.0] * n])
def test_no_surplus_where_every_batch_is_full_at_once_or_none_ever(draw: Callable[[int, int], list[float]]) -> None:
    assert spend(make_selector("dapo", range(2000), SelectorConfig(prompts_per_round=8)), draw)["surplus"] == 0
