"""The presets: every formula against a slow literal transcription, and every trap seen in published code."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.errors import ConfigError
from dopr.selection import STRATEGIES, Selector, SelectorConfig, make_selector
from dopr.selection.estimators import BetaPosterior, Categories, RunningMean
from dopr.selection.history import Group, RewardScale
from dopr.selection.knapsack import allocate_rollouts, rollout_value
from dopr.train.state import load_state, save_state
from selection_kit import bernoulli, build, ids, play

EVERYONE = np.arange(30)


def random_groups(n: int, prompts: int = 30, longest: int = 12) -> list[tuple[int, list[float]]]:
    rng = np.random.default_rng(5)
    return [
        (int(rng.integers(prompts)), (rng.random(rng.integers(1, longest)) < rng.random()).astype(float).tolist())
        for _ in range(n)
    ]


def told(name: str, groups: list[tuple[int, list[float]]], options: dict[str, Any] | None = None) -> Selector:
    selector = build(name, ids(30), options)
    for row, rewards in groups:
        selector.round += 1
        selector.tell(f"p{row}", rewards)
    return selector


# -- formulas ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.0])
def test_mopps_keeps_the_authors_posterior_and_takes_the_draws_nearest_to_a_half(keep: float) -> None:
    groups = random_groups(80)
    selector = told("mopps", groups, {"keep": keep})
    a, b = [1.0] * 30, [1.0] * 30
    for row, rewards in groups:
        a[row] = keep * a[row] + (1 - keep) * 1 + sum(rewards)
        b[row] = keep * b[row] + (1 - keep) * 1 + len(rewards) - sum(rewards)
    posterior = selector.estimators()["prompts"]
    np.testing.assert_allclose(posterior.a, a, rtol=1e-5)  # type: ignore[attr-defined]
    np.testing.assert_allclose(posterior.b, b, rtol=1e-5)  # type: ignore[attr-defined]
    selector.rng = np.random.default_rng(3)
    draws = np.random.default_rng(3).beta(np.float32(a), np.float32(b))
    scores = selector.score(EVERYONE)
    np.testing.assert_allclose(scores, [-abs(d - 0.5) for d in draws], atol=1e-6)
    assert selector.choose(scores, 4).tolist() == sorted(range(30), key=lambda i: abs(draws[i] - 0.5))[:4]


def test_spo_forgets_by_rollout_and_draws_in_proportion_to_its_weights() -> None:
    groups = random_groups(80)
    selector = told("spo", groups)
    a, b = [4.0] * 30, [4.0] * 30
    for row, rewards in groups:
        fade = 0.96 ** len(rewards)
        a[row] = fade * a[row] + sum(rewards)
        b[row] = fade * b[row] + len(rewards) - sum(rewards)
    v = np.array(a) / (np.array(a) + np.array(b))
    weights = np.sqrt(v * (1 - v)) + 0.05
    np.testing.assert_allclose(selector.score(EVERYONE), weights, rtol=1e-5)
    counts = np.bincount([int(selector.choose(weights, 1)[0]) for _ in range(12000)], minlength=30)
    expected = 12000 * weights / weights.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 58.3  # chi-square with 29 degrees, p = .001


def test_learnability_and_kimi_use_the_posterior_of_all_that_was_seen() -> None:
    groups = random_groups(60)
    a, b = np.ones(30), np.ones(30)
    for row, rewards in groups:
        a[row] += sum(rewards)
        b[row] += len(rewards) - sum(rewards)
    np.testing.assert_allclose(told("learnability", groups).score(EVERYONE), a * b / ((a + b) * (a + b + 1)), rtol=1e-5)
    # E[p (1 - p)] by numerical integration of the Beta density
    p = (np.arange(20000) + 0.5) / 20000
    density = p ** (a[0] - 1) * (1 - p) ** (b[0] - 1)
    assert told("learnability", groups).score(EVERYONE)[0] == pytest.approx(
        (density * p * (1 - p)).sum() / density.sum(), rel=1e-4
    )
    np.testing.assert_allclose(told("kimi", groups).score(EVERYONE), b / (a + b), rtol=1e-5)


def test_the_hard_and_easy_pair_takes_one_of_each_in_turn() -> None:
    selector = build("hard-easy", ids(4), prompts_per_round=2)
    scores = np.array([0.02, 0.3, 0.7, 0.99])
    assert selector.choose(scores, 2).tolist() == [1, 2]
    assert selector.choose(scores, 4).tolist() == [1, 2, 0, 3]
    alone = build("hard-easy", ids(4))
    first = int(alone.choose(scores, 1)[0])
    alone.round += 1
    assert [first, int(alone.choose(scores, 1)[0])] == [1, 2]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["1", "1", "1", "1"], 0.0),
        (["1", "2", "3", "4"], 1.0),
        (["1", "1", "2", "2"], 4 / 6),
        (["1", "1", "1", "2"], 3 / 6),
        (["7"], 0.0),
    ],
)
def test_disagreement_is_the_share_of_pairs_with_different_answers(answers: list[str], expected: float) -> None:
    group = RewardScale().group([0.0] * len(answers), answers)
    assert group is not None
    assert group.disagreement == pytest.approx(expected)
    pairs = list(itertools.combinations(answers, 2))
    assert group.disagreement == pytest.approx(sum(a != b for a, b in pairs) / max(len(pairs), 1))


def test_disagreement_prefers_many_wrong_answers_to_one_wrong_answer() -> None:
    selector = build("disagreement", ids(3))
    for prompt, answers in (("p0", ["4", "4", "4", "4"]), ("p1", ["4", "5", "6", "7"])):
        selector.tell(prompt, [0.0] * 4, answers)
    assert selector.score(np.arange(3)).tolist() == [0.0, 1.0, 1.0]
    selector.tell("p1", [0.0] * 4, ["4", "4", "4", "5"])
    assert selector.score(np.array([1]))[0] == pytest.approx(0.75)  # halfway from 1 to 1/2


def test_sec_moves_the_value_of_the_drawn_category_by_its_mean_advantage() -> None:
    names = ["a", "b", "c"] * 10
    selector = make_selector("sec", ids(30), SelectorConfig())
    selector.set_metadata({"category": names})
    q = {"a": 0.0, "b": 0.0, "c": 0.0}
    for row, rewards in random_groups(50):
        selector.tell(f"p{row}", rewards)
        r = np.array(rewards)
        advantage = np.abs((r - r.mean()) / r.std()).mean() if r.std() else 0.0
        q[names[row]] = 0.5 * q[names[row]] + 0.5 * advantage
    weights = {c: math.exp(v / 0.5) for c, v in q.items()}
    expected = [weights[names[i]] / sum(weights.values()) / 10 for i in range(30)]
    np.testing.assert_allclose(selector.score(EVERYONE), expected, rtol=1e-5)
    some = np.array([0, 3, 1])  # two of a, one of b, none of c
    total = weights["a"] + weights["b"]
    np.testing.assert_allclose(
        selector.score(some), [weights["a"] / total / 2, weights["a"] / total / 2, weights["b"] / total], rtol=1e-5
    )


def test_dump_adds_the_count_bonus_to_a_windowed_mean() -> None:
    names = ["x", "y"] * 15
    selector = make_selector("dump", ids(30), SelectorConfig(), {"window": 4})
    selector.set_metadata({"category": names})
    seen: dict[str, list[float]] = {"x": [], "y": []}
    for row, rewards in random_groups(25):
        selector.tell(f"p{row}", rewards)
        p = float(np.mean(rewards))
        seen[names[row]].append(2 * math.sqrt(p * (1 - p)))
    n = {c: len(v) for c, v in seen.items()}
    value = {c: np.mean(v[-4:]) + math.sqrt(2 * math.log(sum(n.values()) + 1) / (n[c] + 1)) for c, v in seen.items()}
    weight = {c: math.exp(v / 0.1) for c, v in value.items()}
    expected = [weight[names[i]] / sum(weight.values()) / 15 for i in range(30)]
    np.testing.assert_allclose(selector.score(EVERYONE), expected, rtol=1e-4)


def test_adarft_moves_its_target_by_the_mean_reward_of_the_round() -> None:
    selector = build("adarft", ids(101), prompts_per_round=3, candidates=40)
    selector.set_metadata({"difficulty": [-5 + i / 10 for i in range(101)]})  # any scale
    target, rng = 0.0, np.random.default_rng(2)
    for _ in range(40):
        picks = selector.ask()
        assert selector.metrics()["target_difficulty"] == pytest.approx(target)
        distance = np.abs(selector.candidate_rows - target)
        assert sorted(abs(p.row - target) for p in picks) == pytest.approx(sorted(distance)[:3])
        rates = []
        for pick in picks:
            rewards = (rng.random(8) < 1 - pick.row / 100).astype(float).tolist()
            rates.append(np.mean(rewards))
            selector.tell(pick.prompt_id, rewards)
        target = min(max(target + 50 * math.tanh(2 * (float(np.mean(rates)) - 0.5)), 0), 100)
    assert 20 < target < 80


def test_greso_skips_by_trailing_constant_groups_and_adapts_easy_and_hard_apart() -> None:
    selector = build("greso", ids(6), candidates=6)
    feed = {"p0": [[0.0] * 4] * 3, "p1": [[1.0] * 4] * 2, "p2": [[0.0] * 4, [0.0, 1.0]], "p3": [[0.0, 1.0]]}
    for prompt, groups in feed.items():
        for rewards in groups:
            selector.tell(prompt, rewards)
    assert selector.score(np.arange(6)).tolist() == [0.5**3, 0.5**2, 1, 1, 1, 1]
    # 8 groups: 2 easy constant (share .25 > .25/3), 4 hard constant (share .5 > .5/3): both explored less.
    selector.ask()
    assert (selector.easy, selector.hard) == (pytest.approx(0.49), pytest.approx(0.49))  # type: ignore[attr-defined]
    for _ in range(10):
        selector.tell("p3", [0.0, 1.0])
    selector.ask()  # no constant group: both explored more
    assert selector.metrics()["explore_easy"] == pytest.approx(0.5)
    # Too few groups to judge by: at one prompt a round the last of each is mixed, whatever was replaced.
    for _ in range(7):
        selector.tell("p4", [0.0] * 4)
        selector.ask()
    assert selector.metrics()["explore_hard"] == pytest.approx(0.5)
    for _ in range(8 * 200):
        selector.tell("p4", [0.0] * 4)
        selector.ask()
    assert selector.metrics()["explore_hard"] == pytest.approx(0.05)
    assert selector.metrics()["explore_easy"] == pytest.approx(0.95)
    assert selector.score(np.array([4]))[0] == 0.01  # the floor


def test_greso_passes_candidates_at_their_probability() -> None:
    selector = build("greso", ids(2), candidates=2)
    for _ in range(2):
        selector.tell("p0", [0.0] * 4)
    picks = [int(selector.choose(np.array([0.25, 1.0]), 1)[0]) for _ in range(8000)]
    # p0 is taken when it passes (1/4) and wins the tie with p1 (1/2).
    assert np.mean(np.array(picks) == 0) == pytest.approx(1 / 8, abs=0.015)


def test_the_band_keeps_what_lies_within() -> None:
    selector = build("band", ids(4))
    for right, action in ((0, "drop"), (1, "drop"), (2, "keep"), (4, "keep"), (6, "keep"), (7, "drop"), (8, "drop")):
        assert selector.review("p0", [1.0] * right + [0.0] * (8 - right)).action == action
    assert selector.review("p0", [None] * 8).action == "drop"


def test_speed_screens_first_and_completes_only_what_differs() -> None:
    selector = build("speed", ids(40), group_size=16, prompts_per_round=2)
    assert [p.rollouts for p in selector.ask()] == [4, 4]
    assert selector.review("p0", [0.0, 0.0, 0.0, 0.0]).action == "drop"
    verdict = selector.review("p0", [0.0, 1.0, 0.0, 0.0])
    assert (verdict.action, verdict.rollouts) == ("more", 12)
    assert selector.review("p0", [0.0, 1.0] * 8).action == "keep"
    log = play(selector, bernoulli(np.linspace(0, 1, 40)), 30)
    assert {n for _, n, _ in log} == {4, 16}
    assert all((n == 16) == (action == "keep") for _, n, action in log)


def test_reinforce_ada_goes_on_until_both_signs_are_there() -> None:
    selector = build("reinforce-ada", ids(4))
    assert selector.review("p0", [0.0] * 7 + [1.0]).action == "more"
    assert selector.review("p0", [0.0] * 6 + [1.0] * 2).action == "keep"
    assert selector.review("p0", [0.0] * 14 + [1.0] * 2).action == "keep"
    assert selector.review("p0", [1.0] * 24).action == "more"
    assert selector.review("p0", [1.0] * 32).action == "keep"
    assert selector.review("p0", [0.1, 0.2, 0.5, 0.9, 0.8, 0.3, 0.4, 0.6]).action == "keep"  # continuous rewards


def test_knapsack_spends_the_budget_of_the_round_as_brute_force_would() -> None:
    for trial in range(30):
        rng = np.random.default_rng(trial)
        k = int(rng.integers(1, 5))
        p = rng.uniform(0.02, 0.98, k)
        budget = int(rng.integers(2 * k, 14))
        splits = [s for s in itertools.product(range(2, budget + 1), repeat=k) if sum(s) == budget]
        best = max(float(rollout_value(p, np.array(s)).sum()) for s in splits)
        mine = allocate_rollouts(p, budget, 2)
        assert mine.sum() == budget
        assert mine.min() >= 2
        assert float(rollout_value(p, mine).sum()) == pytest.approx(best, rel=1e-9)
    selector = build("knapsack", ids(4), prompts_per_round=4)
    selector.tell("p0", [1.0] * 8)
    selector.tell("p1", [0.0] * 7 + [1.0])
    rollouts = {p.prompt_id: p.rollouts for p in selector.ask()}
    assert sum(rollouts.values()) == 32
    assert rollouts["p0"] == min(rollouts.values()) < rollouts["p1"]


def test_one_shot_stays_with_its_prompts() -> None:
    named = build("one-shot", ids(20), {"prompts": ["p7", "p3"]}, prompts_per_round=2)
    assert [[p.prompt_id for p in named.ask()] for _ in range(3)] == [["p7", "p3"]] * 3
    filled = build("one-shot", ids(20), {"prompts": "p7"}, prompts_per_round=3)
    first = [p.prompt_id for p in filled.ask()]
    assert first[0] == "p7"
    assert len(set(first)) == 3
    assert [p.prompt_id for p in filled.ask()] == first
    with pytest.raises(ConfigError, match="'p99' is not in this selector's pool"):
        build("one-shot", ids(20), {"prompts": ["p99"]})
    with pytest.raises(ConfigError, match="names 2 prompts, but a round has 1"):
        build("one-shot", ids(20), {"prompts": ["p1", "p2"]})
    assert [pick.rollouts for pick in build("one-shot", ids(20), {}, chunk=2).ask()] == [2]
    with pytest.raises(ConfigError, match="names a prompt twice"):
        build("one-shot", ids(20), {"prompts": ["p1", "p1"]}, prompts_per_round=2)


# -- traps seen in published implementations -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mopps", "spo", "learnability", "kimi", "hard-easy", "knapsack", "dopr"])
def test_a_single_rollout_moves_the_posterior(name: str) -> None:
    """MoPPS: operator precedence froze the posterior when n = 1."""
    for reward in (0.0, 1.0):
        selector = build(name, ids(4))
        before = selector.predict(np.arange(1))
        selector.tell("p0", [reward])
        after = selector.predict(np.arange(1))
        assert before is not None
        assert after is not None
        assert (after[0] > before[0]) == (reward == 1.0)
        assert after[0] != before[0]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_failing_load_is_loud(name: str) -> None:
    """MoPPS: load() swallowed every exception; Trinity-RFT: the state was empty and the posterior lost."""
    selector = build(name, ids(9), prompts_per_round=2)
    play(selector, bernoulli(np.linspace(0, 1, 9)), 5)
    state = selector.state_dict()
    for key in ("estimators", "rng", "round", "scale", "memory"):
        with pytest.raises(KeyError, match=key):
            build(name, ids(9)).load_state_dict({k: v for k, v in state.items() if k != key})
    for estimator in state["estimators"]:
        broken = {k: v for k, v in state["estimators"].items() if k != estimator}
        with pytest.raises(KeyError, match=estimator):
            build(name, ids(9)).load_state_dict(state | {"estimators": broken})


@pytest.mark.parametrize("g", [2, 8, 64])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 3.0)])
@pytest.mark.parametrize("name", [n for n in STRATEGIES if n not in ("one-shot", "reinforce-ada")])
def test_nothing_is_tied_to_one_reward_scale_or_group_size(name: str, low: float, high: float, g: int) -> None:
    """GRESO: thresholds made for rewards of 0 and 1 and for G = 8. The same outcomes on another scale, the same choices."""

    def picks(a: float, b: float) -> list[tuple[str, int, str]]:
        selector = build(name, ids(40), group_size=g, prompts_per_round=2, candidates=20)
        selector.scale.low, selector.scale.high = a, b
        coin = bernoulli(np.linspace(0, 1, 40), seed=1)
        return play(selector, lambda row: a + (b - a) * coin(row), 12)

    assert picks(0.0, 1.0) == picks(low, high)


def test_adarft_does_not_repeat_a_batch_while_its_target_stands_still() -> None:
    selector = build("adarft", ids(400), prompts_per_round=4, candidates=40)
    batches = []
    for _ in range(10):
        batch = selector.ask()
        batches.append(frozenset(p.prompt_id for p in batch))
        for pick in batch:
            selector.tell(pick.prompt_id, [0.0, 1.0])  # mean reward 1/2: the target does not move
    assert selector.metrics()["target_difficulty"] == 0
    assert len(set(batches)) == 10


@pytest.mark.parametrize("name", ["sec", "dump"])
def test_categories_that_are_not_drawn_keep_their_value(name: str) -> None:
    selector = make_selector(name, ids(4), SelectorConfig())
    selector.set_metadata({"category": ["a", "a", "b", "b"]})
    selector.tell("p0", [0.0, 1.0])
    before = selector.estimators()["categories"].means().copy()  # type: ignore[attr-defined]
    for _ in range(50):
        selector.tell("p2", [0.0, 1.0, 0.0, 0.0])
    after = selector.estimators()["categories"].means()  # type: ignore[attr-defined]
    assert after[0] == before[0] > 0
    assert after[1] > 0


@pytest.mark.parametrize(
    "name", ["mopps", "spo", "learnability", "kimi", "hard-easy", "disagreement", "knapsack", "greso"]
)
def test_prompts_that_are_not_drawn_do_not_decay(name: str) -> None:
    selector = build(name, ids(4))
    selector.tell("p0", [0.0, 1.0, 1.0])
    before = {k: v.copy() for k, v in selector.estimators()["prompts"].state_dict().items()}
    for _ in range(30):
        selector.round += 1
        selector.tell("p1", [1.0, 0.0])
    for field, values in selector.estimators()["prompts"].state_dict().items():
        assert values[0] == before[field][0] or np.isnan(before[field][0])
        assert values[3] == before[field][3] or np.isnan(before[field][3])


@pytest.mark.parametrize("name", STRATEGIES)
def test_knowledge_survives_a_reshuffled_and_extended_pool(name: str) -> None:
    """State keyed by row number was corrupted by a reshuffle; ours is keyed by id."""
    old = build(name, ids(30), prompts_per_round=2)
    play(old, bernoulli(np.linspace(0, 1, 30)), 25)
    order = np.random.default_rng(0).permutation(30)
    new = build(name, [*(f"p{i}" for i in order), *(f"new{i}" for i in range(10))], prompts_per_round=2)
    new.load_state_dict(old.state_dict())
    mine, theirs = old.predict(order), new.predict(np.arange(30))
    if mine is not None and theirs is not None:
        np.testing.assert_allclose(theirs, mine, rtol=1e-6)
    new.rng, old.rng = np.random.default_rng(4), np.random.default_rng(4)
    np.testing.assert_allclose(new.score(np.arange(30)), old.score(order), rtol=1e-6)
    assert np.isfinite(new.score(np.arange(40))).all()
    if name == "one-shot":
        assert [p.prompt_id for p in new.ask()] == [p.prompt_id for p in old.ask()]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_strategy_goes_on_as_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    rates = np.linspace(0, 1, 50)
    whole, first = (build(name, ids(50), prompts_per_round=3, seed=9) for _ in range(2))
    coins = bernoulli(rates), bernoulli(rates)
    for selector, coin in zip((whole, first), coins, strict=True):
        play(selector, coin, 12)
    save_state(tmp_path / "s.npz", first.state_dict())
    second = build(name, ids(50), prompts_per_round=3, seed=9)
    second.load_state_dict(load_state(tmp_path / "s.npz"))
    assert play(whole, coins[0], 12) == play(second, coins[1], 12)


def test_equality_decides_what_is_constant_not_a_float_deviation() -> None:
    nearly = [0.1 + 0.2, 0.3, 0.3, 0.3]  # differ in the last bit: a tiny deviation, but an advantage
    equal = [0.1] * 3  # whose float deviation is not zero
    assert np.std(equal) > 0
    for name in ("dapo", "greso", "speed"):
        selector = build(name, ids(4), group_size=4)
        assert selector.review("p0", nearly).action == "keep"
        assert selector.review("p0", [0.1] * 4).action == "drop"


def test_the_one_losing_rollout_is_not_masked_out() -> None:
    """NeMo-RL: a leave-one-out mask dropped a group's single failure."""
    for name in STRATEGIES:
        selector = build(name, ids(4), group_size=8)
        group = selector.tell("p0", [1.0] * 7 + [0.0])
        assert group == Group(
            8, 7 / 8, pytest.approx(2 * math.sqrt(7) / 8), True, pytest.approx(math.sqrt(7) / 4), 0.25
        )  # type: ignore[arg-type]


def test_kept_rollouts_survive_a_pool_that_runs_out() -> None:
    """OpenRLHF: accepted rollouts were thrown away when the prompts ran out; Trinity: runs died at max refills."""
    selector = build("dapo", ids(6), prompts_per_round=4)
    rates = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.5])
    for _ in range(6):
        log = play(selector, bernoulli(rates))
        assert len({i for i, _, _ in log}) == len(log) <= 6


def test_a_selector_is_told_training_rewards_only() -> None:
    """DUMP: a bandit was fed with validation rewards. Nothing moves but by tell, and evaluation never calls it."""
    import dopr.evaluate

    assert ".tell(" not in Path(dopr.evaluate.__file__).read_text()


# -- metadata, options, golden trajectories ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sec", "dump", "adarft"])
def test_missing_metadata_is_named(name: str) -> None:
    selector = make_selector(name, ids(4), SelectorConfig())
    with pytest.raises(ConfigError, match=f"{name!r} needs a (category|difficulty) for every problem"):
        selector.ask()
    with pytest.raises(ConfigError, match="has 2 values for a pool of 4"):
        selector.set_metadata({"category": ["a", "b"], "difficulty": [1, 2]})


def test_a_difficulty_that_is_none_is_refused() -> None:
    for wrong in ("hard", None, float("nan")):
        with pytest.raises(ConfigError, match="difficulty"):
            make_selector("adarft", ids(2), SelectorConfig()).set_metadata({"difficulty": [1.0, wrong]})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("band", {"low": 0.8, "high": 0.2}, "0 <= low <= high <= 1"),
        ("greso", {"target": 2.0}, "between 0 and 1"),
        ("speed", {"screen": 1}, "two rollouts at least"),
        ("reinforce-ada", {"keep": 1}, "at least 2"),
        ("mopps", {"keep": -0.1}, "between 0"),
        ("mopps", {"target": 1.0}, "above 0 and below 1"),
        ("spo", {"rho": 0.0}, "rho must lie"),
        ("hard-easy", {"hard": 0.9}, "0 < hard < easy < 1"),
        ("disagreement", {"step": 0.0}, "must lie in"),
        ("sec", {"temperature": 0.0}, "above 0"),
        ("dump", {"window": 0}, "at least 1"),
        ("adarft", {"start": 101}, "must lie in"),
        ("knapsack", {"least": 1}, "needs 2 rollouts"),
        ("knapsack", {"least": 9}, "budget of a round"),
        ("dump", {"window": 2.5}, "a whole number"),
        ("mopps", {"lambda": 0.5}, "no option 'lambda'"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, ids(30), options)


def test_estimators_know_their_size_and_their_unseen() -> None:
    posterior, mean = BetaPosterior(3, prior=2.0), RunningMean(3, initial=0.7, step=0.5)
    assert posterior.mean(np.arange(3)).tolist() == [0.5] * 3
    assert mean.value.tolist() == pytest.approx([0.7] * 3)
    mean.observe(1, 0.0)
    mean.observe(1, 1.0)
    assert mean.value.tolist() == pytest.approx([0.7, 0.5, 0.7])
    assert sum(a.nbytes for a in (posterior.a, posterior.b)) == 24
    categories = Categories([3, "x", 3], window=2)
    assert categories.names == ["3", "x"]
    assert categories.means().tolist() == [0, 0]
    for value in (1.0, 2.0, 4.0):
        categories.observe(0, value)
    assert categories.means().tolist() == [3, 0]


def trajectory(name: str) -> str:
    """The first picks of a fixed history, and a hash of sixty rounds."""
    selector = build(name, ids(64), prompts_per_round=2, candidates=16, seed=7)
    selector.set_features(np.random.default_rng(0).standard_normal((64, 4)))
    log = play(selector, bernoulli(np.linspace(0, 1, 64), seed=8), 60)
    return f"{' '.join(i for i, _, _ in log[:4])} {hashlib.sha256(repr(log).encode()).hexdigest()[:12]}"


@pytest.mark.parametrize("name", STRATEGIES)
def test_trajectories_are_those_recorded(name: str) -> None:
    """A change of any rule shows here; record anew with ``python tests/test_strategies.py`` and say why in the commit."""
    recorded = json.loads((Path(__file__).parent / "golden_trajectories.json").read_text())
    assert trajectory(name) == recorded[name]


if __name__ == "__main__":
    golden = {name: trajectory(name) for name in STRATEGIES}
    (Path(__file__).parent / "golden_trajectories.json").write_text(json.dumps(golden, indent=1) + "\n")
