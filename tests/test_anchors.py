"""Survey and anchors: alone, in the tabular world, and through the real trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.errors import ConfigError
from dopr.selection import Dopr, SelectorConfig, make_selector
from dopr.selection.memory import LIKELY, Success
from dopr.train.state import load_state, save_state
from selection_kit import ids


def rollout(prompt: str, *, anchor: bool = False) -> Success:
    base = np.zeros((3, 2), LIKELY) if anchor else None
    return Success(prompt, np.arange(2), np.arange(3), base)


def dopr(n: int = 24, clusters: int = 4, *, replay: int | None = None, **options: Any) -> Dopr:
    selector = make_selector("dopr", ids(n), SelectorConfig(replay=replay), {"clusters": clusters, **options})
    assert isinstance(selector, Dopr)
    selector.set_features(None, np.arange(n, dtype=np.int32) % clusters)
    return selector


def surveyed(selector: Dopr, rewards: Callable[[int], list[float]] = lambda stage: [0.0]) -> list[int]:
    """Runs the whole survey, every rollout becoming an anchor; the clusters in the order they were seen."""
    seen = []
    while True:
        before = len(seen)
        for pick in selector.ask():
            if not selector.wants_rejected:
                return seen
            selector.tell(pick.prompt_id, rewards(before))
            selector.witness(rollout(pick.prompt_id, anchor=True))
            seen.append(int(selector.labels[pick.row]))


def held(selector: Dopr) -> list[int]:
    return sorted(int(selector.labels[int(a.prompt_id[1:])]) for a in selector.hold())


def test_the_survey_looks_at_every_cluster_once_four_of_them_a_round() -> None:
    selector = dopr(n=80, clusters=10, survey=2)
    stages = []
    while (picks := selector.ask()) and selector.wants_rejected:
        assert [p.rollouts for p in picks] == [2] * len(picks)
        assert all(selector.review(p.prompt_id, [0.0, 0.0]).action == "keep" for p in picks)
        stages.append([p.row % 10 for p in picks])
        for pick in picks:
            selector.tell(pick.prompt_id, [0.0, 1.0])
    assert [len(stage) for stage in stages] == [4, 4, 2]
    assert sorted(cluster for stage in stages for cluster in stage) == list(range(10))
    assert stages[0] != [0, 1, 2, 3]  # in random order: clusters have none
    assert [len(selector.ask()) for _ in range(5)] == [1] * 5
    assert not selector.wants_rejected
    assert selector.review("p0", [0.0] * 2).action == "more"
    assert (selector.estimators()["clusters"].visits >= 1).all()


@pytest.mark.parametrize("without", [{"survey": 0}, {"anchors": 0}])
def test_the_survey_can_be_switched_off(without: dict[str, int]) -> None:
    selector = dopr(**{"clusters": 4} | without)
    assert len(selector.ask()) == 1
    assert not selector.wants_rejected
    on_policy = dopr(replay=0)
    assert len(on_policy.ask()) == 1
    assert on_policy.replay() == on_policy.hold() == []
    assert on_policy.replay_updates == 0


def test_anchors_stay_until_their_cluster_shows_a_success() -> None:
    selector = dopr()
    pick, *rest = selector.ask()
    first = int(selector.labels[pick.row])
    selector.remember(rollout(pick.prompt_id))
    for each in (pick, *rest):  # the first one's cluster has shown a success already
        selector.witness(rollout(each.prompt_id, anchor=True))
    others = sorted({0, 1, 2, 3} - {first})
    assert held(selector) == others
    assert [s.prompt_id for s in selector.replay()] == [pick.prompt_id]
    selector.ask()
    selector.witness(rollout("p9", anchor=True))  # after the survey nothing is drawn from the base policy any more
    selector.remember(rollout(f"p{others[0] + 4}"))
    assert held(selector) == others[1:]
    assert selector.metrics()["anchors"] == 2


def test_an_update_holds_at_most_as_many_anchors_as_asked_for() -> None:
    selector = dopr(n=240, clusters=30, anchors=5)
    surveyed(selector)
    draws = [held(selector) for _ in range(40)]
    assert {len(d) for d in draws} == {5}
    assert len({c for d in draws for c in d}) > 20


def test_where_training_elsewhere_serves_all_clusters_only_those_that_fail_again_stay_anchored() -> None:
    """One skill shared by all: what had failed nowhere in particular succeeds at its next look."""
    shared = dopr(n=240, clusters=30, anchors=16)
    surveyed(
        shared, lambda seen: [float(seen >= 8)]
    )  # the first quarter fails, all others succeed without training there
    assert shared.transfer > 0.6
    assert len(held(shared)) < 6
    shared.tell("p3", [0.0] * 8)
    draws = [held(shared) for _ in range(100)]
    again, others = sum(3 in d for d in draws), sum(len(d) for d in draws) / 30
    assert again > 1.5 * others  # seen failing again: held sooner than the others
    separate = dopr(n=240, clusters=30, anchors=16)
    surveyed(separate)
    assert separate.transfer == 0
    assert len(held(separate)) == 16


def test_the_survey_and_its_anchors_are_saved_and_restored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for rounds in (1, 2, 4, 6):
        selector = dopr(n=80, clusters=10)
        for _ in range(rounds):
            for pick in selector.ask():
                selector.tell(pick.prompt_id, [0.0, 0.0])
                base = np.zeros((3, 2), LIKELY)
                base["token"], base["logp"] = rng.integers(9, size=(3, 2)), rng.random((3, 2))
                selector.witness(Success(pick.prompt_id, np.arange(2), np.arange(3), base))
        selector.remember(rollout("p0"))
        path = tmp_path / f"{rounds}.npz"
        save_state(path, selector.state_dict())
        twin = dopr(n=80, clusters=10)
        twin.load_state_dict(load_state(path))
        mine, theirs = selector.hold(), twin.hold()
        assert [a.prompt_id for a in mine] == [a.prompt_id for a in theirs]
        assert len(mine) > 0
        for a, b in zip(mine, theirs, strict=True):
            assert a.base is not None
            assert b.base is not None
            np.testing.assert_array_equal(a.base, b.base)
        assert [s.base for s in twin.replay()] == [None]
        for s in (selector, twin):
            s.rng = np.random.default_rng(5)
        assert [[p.prompt_id for p in s.ask()] for s in (selector,)] == [
            [p.prompt_id for p in s.ask()] for s in (twin,)
        ]
        assert selector.wants_rejected == twin.wants_rejected == (rounds < 3)
    with pytest.raises(KeyError, match="anchors"):
        dopr(n=80, clusters=10).load_state_dict({k: v for k, v in selector.state_dict().items() if k != "anchors"})


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

    t = trainer(tmp_path, reward=never, dopr_options={"survey": 2, "clusters": 5, "anchors": 16}, max_steps=6)
    before = [p.clone() for p in t.model.parameters()]
    t.train()
    events = read_events(tmp_path / "out")
    assert [len(e["picks"]) for e in events] == [4, 1, 1, 1, 1, 1]
    assert sorted(p["cluster"] for e in events[:2] for p in e["picks"]) == [0, 1, 2, 3, 4]
    assert [len(p["rewards"]) for e in events[:2] for p in e["picks"]] == [2] * 5
    assert [e["held"] for e in events] == [8, 10, 10, 10, 10, 10]
    assert len(t.selector.anchors) == 10
    # Nothing succeeded and nothing moved, so anchors have no gradient, not even one from rounding: bit for bit the base.
    assert all(torch.equal(a, b) for a, b in zip(before, t.model.parameters(), strict=True))
    for anchor in t.selector.anchors.items():
        assert anchor.base is not None
        with torch.no_grad():
            logits = t.model(torch.tensor([[*anchor.prompt, *anchor.completion]])).logits[
                0, len(anchor.prompt) - 1 : -1
            ]
        exact = torch.log_softmax(logits / t.temperature, -1).topk(32)
        assert anchor.base["token"].shape == (len(anchor.completion), 32)
        np.testing.assert_allclose(anchor.base["logp"], exact.values, atol=1e-5)


@pytest.mark.trl
def test_the_anchors_term_is_the_divergence_and_pulls_back(tmp_path: Path) -> None:
    """Against the sum over the full vocabulary, enumerated; a step down its gradient brings the policy nearer."""
    pytest.importorskip("trl", reason="TRL is not installed")
    import torch

    from dopr.train.anchoring import as_anchors, divergence
    from trl_kit import trainer

    t = trainer(tmp_path)
    rng = np.random.default_rng(0)
    rollouts = [Success(f"p{i}", rng.integers(200, size=3 + i), rng.integers(200, size=6 - i)) for i in range(4)]
    anchors = as_anchors(t, rollouts, rows=3)

    def full() -> torch.Tensor:
        rows = []
        for r in rollouts:
            logits = t.model(torch.tensor([[*r.prompt, *r.completion]])).logits[0, len(r.prompt) - 1 : -1]
            rows.append(torch.log_softmax(logits / t.temperature, -1))
        return torch.cat(rows)

    drawn = torch.cat([torch.from_numpy(r.completion) for r in rollouts])[:, None]

    def enumerated(old: torch.Tensor, new: torch.Tensor) -> float:
        """What the odds of tokens that were not drawn have lost, and how far the drawn ones have risen."""
        b, q = old.gather(1, drawn).exp(), new.gather(1, drawn).exp()
        given = [(x - torch.log1p(-x.gather(1, drawn).exp())).scatter(1, drawn, 0.0) for x in (old, new)]
        weight = (old.exp() / (1 - b)).scatter(1, drawn, 0.0)
        odds = (1 - b[:, 0]) * (weight * (given[0] - given[1])).sum(1)
        risen = b * (b / q).log() + (1 - b) * ((1 - b) / (1 - q)).log()
        return float((odds + risen[:, 0] * (q > b)[:, 0]).sum())

    with torch.no_grad():
        old = full()
        assert float(divergence(t, t.model, anchors)) == 0
        for p in t.model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
        exact = enumerated(old, full())
    term = divergence(t, t.model, anchors)
    term.backward()
    assert 0.05 < float(term.detach()) <= exact + 1e-4  # 33 cells say no more than 258
    with torch.no_grad():
        for p in t.model.parameters():
            if p.grad is not None:
                p -= 0.01 * p.grad
        assert enumerated(old, full()) < exact
        assert float(divergence(t, t.model, anchors)) < float(term.detach())


@pytest.mark.trl
def test_what_failed_may_become_rarer_but_not_likelier(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    import torch

    from dopr.train.anchoring import as_anchors, divergence
    from trl_kit import trainer

    t = trainer(tmp_path)
    prompt = np.array([70, 71, 72])
    (some,) = as_anchors(t, [Success("p0", prompt, np.array([75]))], rows=1)
    assert some.base is not None
    token, other, *_ = map(int, some.base["token"][0])  # the likeliest ones
    anchors = as_anchors(t, [Success("p0", prompt, np.array([token]))], rows=1)
    head = torch.nn.Parameter(
        torch.zeros(len(t.model.lm_head.weight))
    )  # a bias on the logits: moves one token's odds alone
    hook = t.model.lm_head.register_forward_hook(lambda module, inputs, output: output + head)
    losses = {}
    for shift in (-2.0, 0.0, 2.0):
        with torch.no_grad():
            head.zero_()
            head[token] = shift
            losses[shift] = float(divergence(t, t.model, anchors))
    with torch.no_grad():  # another token loses: those that were not drawn no longer keep their odds
        head.zero_()
        head[other] = -2.0
        lost = float(divergence(t, t.model, anchors))
    hook.remove()
    assert losses[0.0] == losses[-2.0] == 0
    assert losses[2.0] > 1e-4
    assert lost > 1e-4


@pytest.mark.trl
def test_replay_updates_follow_each_round_without_rollouts(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from dopr.runlog import read_events
    from trl_kit import trainer

    def always(completions: list[str], **_: Any) -> list[float]:
        return [1.0] * len(completions)

    for n, rounds in ((0, 6), (1, 3), (2, 2), (5, 1)):
        t = trainer(tmp_path / str(n), reward=always, dopr_replay=4, dopr_replay_updates=n, max_steps=6)
        t.train()
        assert len(read_events(tmp_path / str(n) / "out")) == rounds
        assert (t.spent.updates, t.spent.rollouts) == (6, 4 * rounds)
    few = trainer(tmp_path / "few", reward=always, dopr_replay=8, dopr_replay_updates=1, max_steps=6)
    few.train()  # 4 successes after the first round are too few to be repeated alone, 8 after the second are not
    assert [e["step"] for e in read_events(tmp_path / "few" / "out")] == [0, 1, 3, 5]
    nothing = trainer(
        tmp_path / "wrong", reward=lambda completions, **_: [0.0] * len(completions), dopr_replay_updates=3
    )
    nothing.train()
    assert len(read_events(tmp_path / "wrong" / "out")) == 6  # with nothing to replay there is no update to make


@pytest.mark.trl
def test_replay_that_cannot_be_dealt_evenly_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from trl_kit import trainer

    grid = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 1, "max_steps": 1}
    trainer(tmp_path / "few", dopr_replay=3, **grid)
    assert "none would be replayed. Set dopr_replay to a multiple of 4." in caplog.text
    caplog.clear()
    trainer(tmp_path / "enough", dopr_replay=4, **grid)
    assert caplog.text == ""
