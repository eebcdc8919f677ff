"""Searches of the policy as it was before training: when they are asked for, and that nothing but their draws is of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.runlog import read_events
from dopr.selection import Dopr, SelectorConfig, make_selector
from dopr.selection.rollouts import Review
from dopr.train.state import load_state, save_state
from selection_kit import ids


def dopr(**options: Any) -> Dopr:
    selector = make_selector("dopr", ids(24), SelectorConfig(chunk=2), {"clusters": 4, **options})
    assert isinstance(selector, Dopr)
    selector.set_features(None, np.arange(24, dtype=np.int32) % 4)
    return selector


FAILED: list[float | None] = [0.0, 0.0]


def test_after_a_search_in_vain_base_policy_and_policy_take_turns() -> None:
    selector = dopr()
    asked = []
    for i in range(4):
        asked.append(selector.review(f"p{4 * i}", FAILED).base)
        selector.tell(f"p{4 * i}", [0.0] * 24)
    assert asked == [False, True, False, True]
    assert not selector.review("p1", FAILED).base  # another cluster
    selector.tell("p16", [0.0] * 5 + [1.0])
    assert selector._unlocked[0]
    selector._unlocked[:] = False  # else searches are for prompts that are not expected to succeed
    assert selector.review("p20", FAILED) == Review("more", 1, search=True, base=False)


def test_within_a_search_too_they_take_turns() -> None:
    selector = dopr()
    turns = [selector.review("p0", [0.0] * n) for n in range(2, 24)]
    assert [turn.base for turn in turns] == [False] * 6 + [True] * 8 + [False] * 8
    assert all(turn == Review("more", 1, search=True, base=turn.base) for turn in turns)
    selector.tell("p0", [0.0] * 24)
    assert [selector.review("p4", [0.0] * n).base for n in (2, 7)] == [True] * 2
    assert not any(dopr(base_search=False).review("p0", [0.0] * n).base for n in range(2, 24))


def test_after_a_success_prompts_that_go_on_failing_are_searched_by_the_policy_itself() -> None:
    selector = dopr()
    selector.tell("p0", [0.0] * 8)
    assert selector.review("p4", FAILED).base
    selector.tell("p16", [0.0] * 5 + [1.0])  # unlocks the cluster
    assert not selector.review("p20", FAILED).search
    assert selector.review("p20", [0.0] * 7) == Review("more", 1, search=True, base=False)


def test_base_is_asked_for_in_searches_alone() -> None:
    selector = dopr()
    selector.tell("p0", [0.0] * 24)
    for rewards in ([0.0, 1.0], [1.0, 1.0], [0.0] * 24):
        assert not selector.review("p4", rewards).base
    assert selector.searches_base


@pytest.mark.parametrize("options", [{"base_search": False}, {"search": False}])
def test_it_can_be_switched_off(options: dict[str, bool]) -> None:
    selector = dopr(**options)
    selector.tell("p0", [0.0] * 24)
    assert not selector.review("p4", FAILED).base
    assert not selector.searches_base


def test_strategies_without_a_search_keep_no_copy() -> None:
    assert not make_selector("random-one", ids(24), SelectorConfig(), {}).searches_base
    assert not make_selector("dopr", ids(24), SelectorConfig(chunk=8), {}).searches_base


def test_whose_turn_it_is_is_saved(tmp_path: Path) -> None:
    selector, twin = dopr(), dopr()
    selector.tell("p0", [0.0] * 24)
    save_state(tmp_path / "state.npz", selector.state_dict())
    twin.load_state_dict(load_state(tmp_path / "state.npz"))
    assert [twin.review(f"p{i}", FAILED).base for i in range(4)] == [True, False, False, False]


# -- through the trainer -------------------------------------------------------------------------------------------


def never(completions: list[str], **_: Any) -> list[float]:
    return [0.0] * len(completions)


def trained(tmp_path: Path, **settings: Any) -> tuple[Any, dict[str, list[Any]]]:
    """A trainer whose policy has moved; what it generated with, and scored with, in the rounds that follow.

    One token an answer, or the policy would hardly repeat a failure, and not search.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("trl", reason="TRL is not installed")
    from trl_kit import trainer

    options = {"clusters": 1, "search_depth": 1, **settings.pop("dopr_options", {})}
    t = trainer(tmp_path, reward=never, dopr_options=options, dopr_chunk=2, dopr_wrong_cap=8, max_steps=3,
                max_completion_length=1, **settings)  # fmt: skip
    with torch.no_grad():
        for parameter in t.model.parameters():
            if parameter.requires_grad:
                parameter += 0.01
    seen: dict[str, list[Any]] = {"generated": [], "before": [], "after": []}
    model, generate, tell = t.model, t.model.generate, t.selector.tell

    def fingerprint() -> float:
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([[3, 5, 7]])).logits.double().abs().sum())

    def generated(*args: Any, **kwargs: Any) -> Any:
        seen["generated"].append(fingerprint())
        return generate(*args, **kwargs)

    def told(*args: Any) -> Any:
        seen["after"].append((fingerprint(), len(seen["generated"])))
        return tell(*args)

    seen["before"] = [fingerprint()]
    model.generate, t.selector.tell = generated, told
    return t, seen


@pytest.mark.trl
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft calls what transformers renames
def test_draws_come_from_the_base_policy_and_all_else_from_the_policy(tmp_path: Path, lora: bool) -> None:
    settings: dict[str, Any] = {}
    if lora:
        peft = pytest.importorskip("peft", reason="peft is not installed")
        settings["extra"] = {
            "peft_config": peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
        }
    t, seen = trained(tmp_path, **settings)
    moved = seen["before"][0]
    assert t.base_policy.available
    assert len(t.base_policy._kept) == sum(p.requires_grad for p in t.model.parameters())
    with t.base_policy.active():
        base = float(_logits(t.model))
    assert base != pytest.approx(moved, rel=1e-9)
    assert float(_logits(t.model)) == moved  # bit for bit
    t.train()
    (now, first), (_, second), (_, third) = seen["after"]
    assert now == moved  # nothing was learned of a group all wrong
    assert seen["generated"][:first] == [moved] * first  # the first search is the policy's own
    drawn = seen["generated"][first:second]
    assert drawn[0] == pytest.approx(moved)  # as are the first two rollouts of a group
    assert drawn[1:] == [base] * 6  # then one at a time
    assert seen["generated"][second:third] == pytest.approx([moved] * 7)
    events = read_events(tmp_path / "out")
    assert [e["picks"][0]["from_base"] for e in events if e["kind"] == "round"] == [0, 6, 0]


@pytest.mark.trl
def test_a_deep_search_draws_from_both(tmp_path: Path) -> None:
    t, seen = trained(tmp_path, dopr_options={"search_depth": 2})
    with t.base_policy.active():
        base = float(_logits(t.model))
    t.train()
    # Two rollouts at once, then one at a time: eight of the policy, eight of the base policy.
    assert seen["generated"][:15] == [seen["before"][0]] * 7 + [base] * 8
    first = next(e for e in read_events(tmp_path / "out") if e["kind"] == "round")
    assert first["picks"][0]["rollouts"] == 16
    assert first["picks"][0]["from_base"] == 8


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([[3, 5, 7]])).logits.double().abs().sum()


@pytest.mark.trl
def test_without_the_base_policy_searches_are_the_policys_own(tmp_path: Path) -> None:
    t, seen = trained(tmp_path)
    t.base_policy.available = False  # as with a sharded model
    t.train()
    assert seen["generated"] == pytest.approx(seen["before"] * len(seen["generated"]))
    assert len(seen["generated"]) == 7 + 7 + 7


@pytest.mark.trl
def test_no_copy_is_kept_where_nobody_asks_for_it(tmp_path: Path) -> None:
    t, _ = trained(tmp_path, dopr_options={"base_search": False})
    assert not t.base_policy.available
    assert not t.base_policy._kept


@pytest.mark.trl
def test_what_has_failed_is_weighed_by_the_policy_that_draws(tmp_path: Path) -> None:
    t, _ = trained(tmp_path)
    from dopr.train.untried import Trees

    trees, prompt, failed = Trees(t), (81, 49, 58), {0: [(65, 66), (67, 68)]}
    own, base = (trees.of({0: prompt}, failed, which)[0].tried for which in (False, True))
    with t.base_policy.active():
        expected = Trees(t).of({0: prompt}, failed)[0].tried
    assert base == expected != own


@pytest.mark.trl
def test_without_anything_to_leave_out_the_base_policy_draws_all_the_same(tmp_path: Path) -> None:
    t, seen = trained(tmp_path)
    from dopr.train.untried import untried_only

    with t.base_policy.active():
        base = float(_logits(t.model))
    prompt = t.processing_class("q1: ", return_tensors="pt")
    for which in (True, False):
        with untried_only(t, [None], which):
            t.model.generate(**prompt, max_new_tokens=1)
    assert seen["generated"] == [base, *seen["before"]]
