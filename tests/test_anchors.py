"""Survey and anchors: alone, in the tabular world, and through the real trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.errors import ConfigError
from dopr.selection import Dopr, SelectorConfig, make_selector
from dopr.selection.anchors import anchor_advantage
from dopr.selection.memory import Success
from dopr.train.state import load_state, save_state
from selection_kit import ids


def rollout(prompt: str, anchor: float | None = None) -> Success:
    return Success(prompt, np.arange(2), np.arange(3), anchor)


def dopr(n: int = 24, clusters: int = 4, *, replay: int | None = None, **options: Any) -> Dopr:
    selector = make_selector("dopr", ids(n), SelectorConfig(replay=replay), {"clusters": clusters, **options})
    assert isinstance(selector, Dopr)
    selector.set_features(None, np.arange(n, dtype=np.int32) % clusters)
    return selector


def test_the_advantage_is_the_gradient_of_the_divergence_and_vanishes_where_nothing_moved() -> None:
    """Enumerated: sum_y pi_0(y) A(y) grad log pi(y) = -grad KL(pi_0 || pi), over the logits of a categorical policy."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        z0 = rng.standard_normal(6)
        z = z0 + 0.2 * rng.standard_normal(6)  # near enough that no ratio is clipped, far enough that all have moved
        pi0, pi = (np.exp(x) / np.exp(x).sum() for x in (z0, z))
        advantage = anchor_advantage(np.log(pi), np.log(pi0))
        if (np.abs(np.log(pi / pi0)) < 0.01).any():
            continue
        gradient = sum(pi0[y] * advantage[y] * (np.eye(6)[y] - pi) for y in range(6))
        np.testing.assert_allclose(gradient, pi0 - pi, atol=1e-12)  # -grad KL(pi_0 || pi) for a softmax
    assert anchor_advantage(np.array([-3.0, -3.0]), np.array([-3.0, -3.009])).tolist() == [0, 0]  # rounding is no move
    assert anchor_advantage(np.array([-3.0]), np.array([-3.02]))[0] == pytest.approx(1 - np.exp(0.02))
    assert anchor_advantage(np.array([0.0, -1e9]), np.array([-50.0, -1.0])).tolist() == [-1, 1]  # clipped, finite


def test_the_survey_looks_at_every_cluster_once_before_anything_else() -> None:
    selector = dopr(survey=2)
    picks = selector.ask()
    assert {p.row % 4 for p in picks} == {0, 1, 2, 3}
    assert [p.rollouts for p in picks] == [2] * 4
    assert selector.wants_rejected
    assert all(selector.review(p.prompt_id, [0.0, 0.0]).action == "keep" for p in picks)
    for pick in picks:
        selector.tell(pick.prompt_id, [0.0, 1.0])
    assert [len(selector.ask()) for _ in range(5)] == [1] * 5
    assert not selector.wants_rejected
    assert selector.review("p0", [0.0] * 8).action == "more"
    assert (selector.estimators()["clusters"].visits >= 1).all()


@pytest.mark.parametrize("without", [{"survey": 0}, {"anchors": 0}])
def test_the_survey_can_be_switched_off(without: dict[str, int]) -> None:
    selector = dopr(**{"clusters": 4} | without)
    assert len(selector.ask()) == 1
    assert not selector.wants_rejected
    on_policy = dopr(replay=0)
    assert len(on_policy.ask()) == 1
    assert on_policy.replay() == []


def test_anchors_stay_until_their_cluster_shows_a_success() -> None:
    selector = dopr(anchors=8)
    picks = {p.row % 4: p.prompt_id for p in selector.ask()}
    selector.remember(rollout(picks[0]))
    for cluster in (1, 2, 3):
        selector.witness(rollout(picks[cluster], -1.5))
    selector.witness(rollout(picks[0], -1.5))  # its cluster has shown a success already
    drawn = selector.replay()
    assert sorted(s.prompt_id for s in drawn if s.anchor is not None) == sorted(picks[c] for c in (1, 2, 3))
    assert [s.prompt_id for s in drawn if s.anchor is None] == [picks[0]]
    selector.ask()
    selector.witness(rollout("p9", -1.0))  # after the survey nothing is drawn from the base policy any more
    selector.remember(rollout("p5"))  # cluster 1
    assert sorted(s.prompt_id for s in selector.replay() if s.anchor is not None) == sorted(picks[c] for c in (2, 3))
    assert selector.metrics()["anchors"] == 2


def test_anchors_go_once_they_hold_the_policy_back() -> None:
    """One skill shared by all: clusters that showed nothing in the survey succeed now, so training serves them anyway."""

    def left(rate: float) -> int:
        selector = dopr(n=48, clusters=8)
        for pick in selector.ask():
            selector.tell(pick.prompt_id, [0.0])
            selector.witness(rollout(pick.prompt_id, -1.0))
        selector.ask()
        for cluster in range(5):
            selector.tell(f"p{cluster}", [1.0] * round(8 * rate) + [0.0] * round(8 - 8 * rate))
        return len(selector.anchors)

    assert left(0.25) == left(0.5) == 8
    assert left(0.75) == 0


def test_anchors_are_saved_and_restored(tmp_path: Path) -> None:
    selector = dopr()
    for pick in selector.ask():
        selector.tell(pick.prompt_id, [0.0])
        selector.witness(rollout(pick.prompt_id, -2.25))
    save_state(tmp_path / "s.npz", selector.state_dict())
    twin = dopr()
    twin.load_state_dict(load_state(tmp_path / "s.npz"))
    mine, theirs = selector.replay(), twin.replay()
    assert [(s.prompt_id, s.anchor) for s in mine] == [(s.prompt_id, s.anchor) for s in theirs]
    assert len(mine) == 4
    assert [p.prompt_id for p in selector.ask()] == [p.prompt_id for p in twin.ask()]
    with pytest.raises(KeyError, match="anchors"):
        dopr().load_state_dict({k: v for k, v in selector.state_dict().items() if k != "anchors"})


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="survey is -1"):
        dopr(survey=-1)


# -- through the trainer -------------------------------------------------------------------------------------------


@pytest.mark.trl
def test_the_trainer_surveys_first_and_holds_what_has_not_succeeded(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    import torch

    from dopr.runlog import read_events
    from trl_kit import trainer

    def never(completions: list[str], **_: Any) -> list[float]:
        return [0.0] * len(completions)

    t = trainer(tmp_path, reward=never, dopr_options={"survey": 2, "clusters": 5}, max_steps=3)
    before = [p.clone() for p in t.model.parameters()]
    t.train()
    events = read_events(tmp_path / "out")
    first = events[0]["picks"]
    assert sorted(p["cluster"] for p in first) == [0, 1, 2, 3, 4]
    assert [len(p["rewards"]) for p in first] == [2] * 5
    assert events[0]["spent"]["rollouts"] == 10
    assert [e["replayed"] for e in events] == [8, 8, 8]
    assert len(t.selector.anchors) == 10
    # Nothing succeeded, so anchors have no advantage, not even one from rounding: the policy is the base, bit for bit.
    assert all(torch.equal(a, b) for a, b in zip(before, t.model.parameters(), strict=True))
    (anchor,) = {s.anchor for s in t.selector.anchors.draw(1, np.random.default_rng(0))}
    assert anchor is not None
    assert anchor < 0
    stored = t.selector.anchors.draw(1, np.random.default_rng(0))[0]
    tokens = torch.tensor([[*stored.prompt, *stored.completion]])
    with torch.no_grad():
        logits = t.model(tokens).logits[0, len(stored.prompt) - 1 : -1] / t.temperature
    exact = torch.log_softmax(logits, -1)[torch.arange(len(stored.completion)), torch.tensor(stored.completion)].sum()
    assert anchor == pytest.approx(float(exact), abs=1e-4)
