"""A group that fails where success was expected has a negative advantage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dopr.selection import SelectorConfig, make_selector
from dopr.selection.history import Group
from dopr.selection.settings import Pick
from selection_kit import ids

WRONG, RIGHT, PART = (Group(n=4, rate=rate, spread=0.0, mixed=False) for rate in (0.0, 1.0, 0.5))


@pytest.mark.parametrize(
    ("predicted", "group", "advantage"),
    [
        (0.75, WRONG, -0.75),
        (0.0, WRONG, 0.0),
        (0.75, RIGHT, 0.0),
        (0.75, PART, -0.25),
        (0.25, PART, 0.0),
        (None, WRONG, 0.0),
    ],
)
def test_it_is_how_far_the_group_is_below_its_prediction(
    predicted: float | None, group: Group, advantage: float
) -> None:
    pick = Pick("p1", 1, 4, 0.0, predicted)
    assert make_selector("dopr", ids(8), SelectorConfig()).uniform_advantage(pick, group) == advantage
    for name, options in (("dopr", {"shortfall": False}), ("random-one", {}), ("uniform", {}), ("mopps", {})):
        assert make_selector(name, ids(8), SelectorConfig(), options).uniform_advantage(pick, group) == 0.0


def trained(folder: Path, reward: Any, **settings: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The batches that a trainer without replay learned from, and its rounds."""
    from dopr.runlog import read_events
    from trl_kit import trainer

    t = trainer(folder, reward=reward, dopr_replay=0, max_steps=5, **settings)
    batches: list[dict[str, Any]] = []
    compute = t._compute_loss

    def seen(model: Any, inputs: dict[str, Any]) -> Any:
        batches.append(dict(inputs))
        return compute(model, inputs)

    t._compute_loss = seen
    t.train()
    return batches, read_events(folder / "out")


@pytest.mark.trl
def test_failing_rollouts_are_taught_against_and_unscorable_ones_are_not(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")

    def reward(completions: list[str], **_: Any) -> list[float | None]:
        return [0.0] * (len(completions) - 1) + [None]

    for sequential in (False, True):  # one chunk, and several that are joined
        options = {"dopr_chunk": 2, "dopr_options": {"search": False}} if sequential else {}
        on, rounds = trained(tmp_path / f"on{sequential}", reward, **options)
        assert len(on) == len(rounds) == 5
        for batch, event in zip(on, rounds, strict=True):
            (pick,) = event["picks"]
            assert 0 < pick["predicted"] < 1
            assert pick["outcome"] == "all_wrong"
            assert None in pick["rewards"]
            expected = sorted(0.0 if reward is None else -pick["predicted"] for reward in pick["rewards"])
            assert sorted(batch["advantages"].tolist()) == pytest.approx(expected, abs=1e-5)  # TRL shuffles the rows
        options["dopr_options"] = options.get("dopr_options", {}) | {"shortfall": False}
        off, _ = trained(tmp_path / f"off{sequential}", reward, **options)
        assert len(off) == 5
        assert not any(batch["advantages"].any() for batch in off)


@pytest.mark.trl
def test_mixed_groups_and_groups_all_right_keep_trls_advantages(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    calls = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        calls.append(0)
        return [1.0] * len(completions) if len(calls) % 2 else [1.0] + [0.0] * (len(completions) - 1)

    seen = []
    for shortfall in (True, False):
        calls.clear()
        batches, _ = trained(tmp_path / str(shortfall), reward, dopr_options={"shortfall": shortfall})
        seen.append([sorted(batch["advantages"].tolist()) for batch in batches])
    assert seen[0] == seen[1]
    assert [any(row) for row in seen[0]] == [False, True, False, True, False]
