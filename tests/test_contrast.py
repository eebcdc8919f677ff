"""Replayed successes are learned from where they leave the failures of their group."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.selection import SelectorConfig, make_selector
from dopr.selection.memory import Success
from selection_kit import ids

Tokens = tuple[int, ...]


def common(one: Tokens, other: Tokens) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def test_the_rule_can_be_told_to_replay_all_of_a_success() -> None:
    for contrast, start in ((True, 2), (False, 0)):
        selector = make_selector("dopr", ids(8), SelectorConfig(), {"contrast": contrast})
        selector.remember(Success("p1", np.arange(3), np.arange(4), start=2))
        assert [s.start for s in selector.replay()] == [start]


@pytest.mark.trl
def test_agreeing_counts_the_tokens_before_two_completions_part() -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.train.replayer import agreeing

    rng = np.random.default_rng(0)
    for _ in range(200):
        one, other = (rng.integers(0, 2, rng.integers(0, 5)) for _ in range(2))
        assert agreeing(one, other) == common(tuple(one), tuple(other))


def guessing(tmp_path: Path, **settings: Any) -> tuple[Any, list[list[Tokens]], list[dict[str, Any]]]:
    """A trainer whose first rollout of each group is right whatever it says; its groups, and the batches it learns from.

    The policy is so sure of itself that completions share their beginnings, and some are the same.
    """
    from trl_kit import trainer

    groups: list[list[Tokens]] = []

    def first_is_right(completion_ids: list[list[int]], **_: Any) -> list[float]:
        groups.append([tuple(tokens) for tokens in completion_ids])
        return [1.0] + [0.0] * (len(completion_ids) - 1)

    t = trainer(tmp_path, reward=first_is_right, temperature=0.06, max_steps=12, **settings)
    batches: list[dict[str, Any]] = []
    compute, last_states = t._compute_loss, []
    t.model.model.norm.register_forward_hook(lambda *args: last_states.append(args[-1]))

    def seen(model: Any, inputs: dict[str, Any]) -> Any:
        import torch

        loss = compute(model, inputs)
        (gradient,) = torch.autograd.grad(loss, last_states[-1], retain_graph=True)
        width = inputs["completion_ids"].shape[1]
        batches.append({**inputs, "taught": gradient[:, -width - 1 : -1].abs().sum(-1) > 0})
        return loss

    t._compute_loss = seen
    t.train()
    return t, groups, batches


@pytest.mark.trl
def test_what_a_groups_failures_share_with_its_success_is_not_learned_again(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    t, groups, batches = guessing(tmp_path, dopr_replay=8)
    expected = [(right, max(common(right, wrong) for wrong in wrongs)) for right, *wrongs in groups]
    kept = [(tuple(s.completion.tolist()), s.start) for s in t.selector.memory.items()]
    assert kept == [(right, start) for right, start in expected if start < len(right)]
    assert len(kept) < len(groups)  # a success that also failed teaches nothing
    assert {start > 0 for _, start in kept} == {True, False}
    start_of = dict(kept)
    replayed = 0
    for batch in batches:
        for row, group in enumerate(batch["dopr_group"].tolist()):
            length = int(batch["completion_mask"][row].sum())
            taught = batch["taught"][row].tolist()
            if group >= 0:  # on-policy rows, in so far as they are not right or wrong alike, are learned from whole
                assert taught == [i < length and bool(batch["advantages"][row]) for i in range(len(taught))]
            else:
                start = start_of[tuple(batch["completion_ids"][row][:length].tolist())]
                assert taught == [start <= i < length for i in range(len(taught))]
                replayed += 1
    assert replayed > 10


@pytest.mark.trl
def test_a_group_without_a_failure_is_replayed_whole(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from trl_kit import trainer

    t = trainer(tmp_path, reward=lambda completions, **_: [1.0] * len(completions), temperature=0.12, max_steps=3)
    t.train()
    assert [s.start for s in t.selector.memory.items()] == [0] * 12
