"""Reward functions at their worst, through the real trainer: what cannot be scored is left out, counted, and never a zero."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.errors import RunError
from dopr.runlog import read_events
from dopr.tasks.guard import GuardedReward

pytest.importorskip("trl", reason="TRL is not installed")
import torch

from trl_kit import even_first_byte, trainer

pytestmark = pytest.mark.trl

Bad = Callable[[str, int], Any]
calls = 0


def odd(completion: str) -> bool:
    return bool(completion) and ord(completion[0]) % 2 == 1


def sometimes(bad: Bad) -> Callable[..., list[Any]]:
    """Right for even first bytes; for odd ones, and only there, ``bad``."""

    def reward(completions: list[str], **_: Any) -> list[Any]:
        return [bad(c, i) if odd(c) else 1.0 - i % 2 for i, c in enumerate(completions)]

    return reward


def raises(completion: str, i: int) -> Any:
    raise KeyError("gold")


def sleeps(completion: str, i: int) -> float:
    time.sleep(0.002)
    return 0.5


def prints(completion: str, i: int) -> float:
    sys.stdout.write('{"kind": "round", "noise": ')
    return 0.5


UNSCORABLE: dict[str, Bad] = {
    "raises": raises,
    "none": lambda c, i: None,
    "nan": lambda c, i: float("nan"),
    "inf": lambda c, i: float("inf"),
    "minus inf": lambda c, i: -np.inf,
    "text": lambda c, i: "good",
    "list": lambda c, i: [1.0],
    "beyond float32": lambda c, i: 1e300,
    "beyond its square root": lambda c, i: -1e30,
    "a huge integer": lambda c, i: 10**400,
    "complex": lambda c, i: 1j,
}


@pytest.mark.parametrize("kind", UNSCORABLE)
def test_what_is_sometimes_no_number_is_left_out_and_the_run_goes_on(tmp_path: Path, kind: str) -> None:
    reward = GuardedReward(sometimes(UNSCORABLE[kind]), timeout=20)
    reward.lenient = True
    seen: list[list[str]] = []

    def noting(completions: list[str], **columns: Any) -> list[float | None]:
        seen.append(list(completions))
        return reward(completions, **columns)

    t = trainer(tmp_path, reward=noting, max_steps=5, dopr_replay=0)
    t.train()
    events = [e for e in read_events(tmp_path / "out") if e["kind"] == "round"]
    given = [r for e in events for p in e["picks"] for r in p["rewards"]]
    assert [r is None for r in given] == [odd(c) for group in seen for c in group]
    assert {r for r in given if r is not None} <= {0.0, 1.0}
    assert None in given
    assert t.selector.scale.high == 1.0
    assert all(torch.isfinite(p).all() for p in t.model.parameters())
    assert np.isfinite([h["loss"] for h in t.state.log_history if "loss" in h]).all()
    if "beyond" not in kind:  # too large for float32 is the trainer's to see
        assert reward.counts["unscorable"] == given.count(None)


@pytest.mark.parametrize("wrong", ["short", "long", "none", "text", "generator"])
def test_answers_of_the_wrong_shape_cost_only_their_round(tmp_path: Path, wrong: str) -> None:
    count = 0

    def reward(completions: list[str], **_: Any) -> Any:
        nonlocal count
        count += len(completions) > 1
        good = even_first_byte(completions)
        if len(completions) == 1 or count % 3:
            return good
        return {"short": good[1:], "long": [*good, 1.0], "none": None, "text": "0.5", "generator": (r for r in good)}[
            wrong
        ]

    guarded = GuardedReward(reward, timeout=20)
    guarded.lenient = True
    t = trainer(tmp_path, reward=guarded, max_steps=6)
    t.train()
    assert guarded.counts["errors"] >= 2
    assert guarded.counts["unscorable"] == 0  # asked again one by one, it answered
    assert t.state.global_step == 6


@pytest.mark.parametrize("bad", [sleeps, prints])
def test_slow_and_talkative_rewards_do_no_harm(tmp_path: Path, bad: Bad, capfd: pytest.CaptureFixture[str]) -> None:
    t = trainer(tmp_path, reward=GuardedReward(sometimes(bad), timeout=20), max_steps=4)
    t.train()
    assert [e["round"] for e in read_events(tmp_path / "out") if e["kind"] == "round"] == [1, 2, 3, 4]


ALWAYS: dict[str, Callable[[list[str]], Any]] = {
    "raises": lambda completions: 1 / 0,
    "hangs": lambda completions: time.sleep(60),
    "none": lambda completions: [None] * len(completions),
    "texts": lambda completions: ["1.0"] * len(completions),
    "nothing": lambda completions: [],
    "nan": lambda completions: [np.nan] * len(completions),
}


@pytest.mark.parametrize("kind", ALWAYS)
def test_a_reward_that_never_works_stops_the_run_with_the_reason(tmp_path: Path, kind: str) -> None:
    def reward(completions: list[str], **_: Any) -> Any:
        return ALWAYS[kind](completions)

    guarded = GuardedReward(reward, timeout=0.05 if kind == "hangs" else 20)
    guarded.lenient = True
    t = trainer(tmp_path, reward=guarded, max_steps=50)
    before = [p.clone() for p in t.model.parameters()]
    t.train()
    assert t.state.global_step == 8
    assert "100% of the rollouts in the last 8 rounds could not be scored" in str(t.stop_reason)
    if kind in ("raises", "hangs", "texts", "nothing"):
        words = {
            "raises": "ZeroDivisionError",
            "hangs": "took more than 0.05 seconds",
            "texts": "'1.0'",
            "nothing": "0 rewards",
        }
        assert words[kind] in str(t.stop_reason)
    events = [e for e in read_events(tmp_path / "out") if e["kind"] == "round"]
    assert {r for e in events for p in e["picks"] for r in p["rewards"]} == {None}
    assert {p["outcome"] for e in events for p in e["picks"]} == {"unscorable"}
    assert all(
        torch.equal(a, b) for a, b in zip(before, t.model.parameters(), strict=True)
    )  # nothing was learned from it


def test_a_quarter_unscorable_warns_but_goes_on(tmp_path: Path) -> None:
    def reward(completions: list[str], **_: Any) -> list[float | None]:
        return [None if i == 0 else r for i, r in enumerate(even_first_byte(completions))]

    t = trainer(tmp_path, reward=reward, max_steps=12, per_device_train_batch_size=3, num_generations=3)
    t.train()
    warnings = [e for e in read_events(tmp_path / "out") if e["kind"] == "warning"]
    assert [(w["round"], w["code"]) for w in warnings] == [(8, "unscorable")]
    assert "33% of the rollouts" in warnings[0]["text"]
    assert t.stop_reason is None


# -- losses and gradients ------------------------------------------------------------------------------------------


def broken_at(t: Any, updates: set[int], value: float, where: str) -> None:
    """Make the loss, or one gradient, of these updates ``value``."""
    compute = t._compute_loss

    def loss(model: Any, inputs: Any) -> torch.Tensor:
        out = compute(model, inputs)
        if t.state.global_step not in updates:
            return out
        if where == "gradient":
            out.register_hook(lambda gradient: gradient * value)
            return out
        return out * value

    t._compute_loss = loss


@pytest.mark.parametrize(
    ("where", "value", "clip"),
    [("loss", np.nan, 1.0), ("loss", np.inf, 0.0), ("gradient", np.nan, 0.0), ("gradient", np.inf, 1.0)],
)
def test_a_broken_update_is_skipped_whole_and_counted(tmp_path: Path, where: str, value: float, clip: float) -> None:
    t = trainer(tmp_path, max_steps=6, max_grad_norm=clip, gradient_accumulation_steps=2, steps_per_generation=2,
                per_device_train_batch_size=2)  # fmt: skip
    broken_at(t, {2, 3}, value, where)
    states: list[list[torch.Tensor]] = []
    step = t.training_step

    def noting(*args: Any, **kwargs: Any) -> Any:
        states.append([p.detach().clone() for p in t.model.parameters()])
        return step(*args, **kwargs)

    t.training_step = noting
    t.train()
    states.append([p.detach().clone() for p in t.model.parameters()])
    same = [all(torch.equal(a, b) for a, b in zip(states[2 * i], states[2 * i + 2], strict=True)) for i in range(6)]
    assert same == [False, False, True, True, False, False]
    assert t.health.skipped == 2
    assert t.stop_reason is None
    moments = [s["exp_avg"] for s in t.optimizer.state.values()]
    assert all(torch.isfinite(m).all() for m in moments)
    texts = [e["text"] for e in read_events(tmp_path / "out") if e["kind"] == "warning"]
    assert len(texts) == 2
    assert f"its {'loss' if where == 'loss' else 'gradient'} is NaN or infinite" in texts[0]
    assert "the last sound gradient norm was" in texts[0]


def test_updates_that_keep_breaking_stop_the_run_with_a_diagnosis(tmp_path: Path) -> None:
    t = trainer(tmp_path, max_steps=40, save_strategy="steps", save_steps=100)
    broken_at(t, set(range(3, 40, 2)), float("nan"), "loss")  # every other one
    t.train()
    assert t.health.skipped == 5
    assert t.state.global_step == 12
    assert "5 of the last 10 updates" in str(t.stop_reason)
    assert "learning rate" in str(t.stop_reason)


def test_a_policy_that_has_blown_up_is_diagnosed(tmp_path: Path) -> None:
    """At the latest before a checkpoint would hold broken weights."""
    settings: dict[str, Any] = {"max_steps": 20, "learning_rate": 1e38, "max_grad_norm": 0.0}
    message = r"policy is broken at round \d+: .*was probably too large"
    with pytest.raises(RunError, match=message):
        trainer(tmp_path / "a", **settings).train()
    with pytest.raises(RunError, match=message):
        trainer(tmp_path / "b", **settings, save_strategy="steps", save_steps=1).train()
    assert list((tmp_path / "b" / "out").glob("checkpoint-*")) == []
