"""The selection core against brute force, simulation and its own promises."""

from __future__ import annotations

import itertools
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.errors import ConfigError, RunError
from dopr.selection import (
    STRATEGIES,
    Dopr,
    Selector,
    SelectorConfig,
    SequentialRollouts,
    acquisition,
    chooser,
    make_selector,
)
from dopr.selection.clusters import cluster_features, default_clusters
from dopr.selection.history import Group, History, RewardScale
from dopr.selection.memory import Success, SuccessMemory
from dopr.selection.plan import CandidatePlan, KeyedPermutation
from dopr.selection.rollouts import is_mixed
from dopr.train.state import load_state, save_state
from selection_kit import build, ids

FLAT = {"thompson": False, "visit_power": 0, "entropy_power": 0, "forgetting": 1.0}
"""The rule without draws, damping, modulation and forgetting: scores are plain numbers to compare."""


def dopr(n: int = 40, *, config: dict[str, Any] | None = None, labels: list[int] | None = None, **options: Any) -> Dopr:
    selector = make_selector("dopr", ids(n), SelectorConfig(**(config or {})), options)
    assert isinstance(selector, Dopr)
    if labels is not None:
        selector.set_features(None, np.array(labels, np.int32))
    return selector


def feed(selector: Selector, prompt: str, *groups: list[float | None]) -> None:
    """Tell groups of one prompt, one round each."""
    for group in groups:
        selector.round += 1
        selector.tell(prompt, group)


def score_of(selector: Dopr, *prompts: int) -> np.ndarray:
    return selector.score(np.array(prompts, np.int64))


# -- candidate batches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*range(1, 70), 127, 128, 129, 1000, 4097])
def test_the_keyed_permutation_hits_every_row_once(n: int) -> None:
    assert sorted(KeyedPermutation(n, 3, 1)(np.arange(n))) == list(range(n))


def test_the_keyed_permutation_depends_on_every_part_of_its_key_and_shuffles() -> None:
    images = {tuple(KeyedPermutation(200, *key)(np.arange(200))) for key in itertools.product(range(4), range(4))}
    assert len(images) == 16
    # Each row's mean place over many keys is that of a uniform shuffle: 99.5 with deviation 57.7 / sqrt(400).
    places = np.mean([np.argsort(KeyedPermutation(200, key)(np.arange(200))) for key in range(400)], axis=0)
    assert np.abs(places - 99.5).max() < 5 * 57.7 / 20


def test_a_huge_pool_is_dealt_without_touching_it() -> None:
    rows = CandidatePlan(10**12, 128, 0).batch(123_456)
    assert len(set(rows.tolist())) == 128
    assert rows.min() >= 0
    assert rows.max() < 10**12


@pytest.mark.parametrize(("pool", "size"), [(1, 1), (5, 3), (10, 10), (100, 7), (129, 128), (255, 128), (1000, 128)])
def test_every_prompt_is_a_candidate_once_per_epoch(pool: int, size: int) -> None:
    plan = CandidatePlan(pool, size, 5)
    for epoch in range(3):
        batches = [plan.batch(epoch * plan.rounds_per_epoch + s) for s in range(plan.rounds_per_epoch)]
        assert sorted(np.concatenate(batches)) == list(range(pool))
        assert max(map(len, batches)) - min(map(len, batches)) <= 1
        assert 2 / 3 * size - 1 <= len(batches[0]) <= 1.5 * size + 1


@pytest.mark.parametrize(("pool", "size"), [(5, 3), (10, 10), (100, 7), (1000, 128)])
def test_an_exact_plan_deals_full_batches_and_no_prompt_twice_in_an_epoch(pool: int, size: int) -> None:
    plan = CandidatePlan(pool, size, 5, exact=True)
    assert plan.rounds_per_epoch == pool // size
    epoch = np.concatenate([plan.batch(r) for r in range(plan.rounds_per_epoch)])
    assert len(epoch) == len(set(epoch.tolist())) == size * (pool // size)


def test_the_plan_is_a_pure_function_of_seed_and_round() -> None:
    plan, order = CandidatePlan(500, 64, 9), [17, 3, 3, 40, 0, 17]
    late = [plan.batch(r).tolist() for r in order]
    assert late == [CandidatePlan(500, 64, 9).batch(r).tolist() for r in order]
    assert late[0] != CandidatePlan(500, 64, 10).batch(17).tolist()
    assert plan.batch(0).tolist() != plan.batch(plan.rounds_per_epoch).tolist()  # a fresh deal every epoch


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("pool", "candidates", "k"), [(5, 3, 3), (3, 2, 2), (11, 4, 4), (7, 7, 5), (20, 3, 1)])
def test_a_round_gets_its_prompts_even_where_batches_do_not_divide_the_pool(
    strategy: str, pool: int, candidates: int, k: int
) -> None:
    selector = build(strategy, ids(pool), prompts_per_round=k, candidates=candidates)
    assert all(len({p.row for p in selector.ask()}) == k for _ in range(12))


# -- histories -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("forgetting", "step"), [(1.0, 1.0), (0.9, 0.3), (0.5, 0.05)])
def test_history_equals_a_literal_transcription(forgetting: float, step: float) -> None:
    rng = np.random.default_rng(4)
    history = History(3, forgetting=forgetting, step=step)
    visits: dict[int, list[tuple[int, list[float]]]] = {0: [], 1: [], 2: []}
    for round_ in range(1, 60):
        row = int(rng.integers(2))  # row 2 stays unseen
        rewards = rng.integers(0, 2, rng.integers(1, 9)).astype(float).tolist()
        group = RewardScale().group(rewards)
        assert group is not None
        history.observe(row, round_, group)
        history.observe_entropy(row, float(len(rewards)))
        visits[row].append((round_, rewards))
    now = 75
    successes, failures = history.counts(np.arange(3), now)
    for row, seen in visits.items():
        # The whole past, weighted by age since *now*: what lazy forgetting must amount to.
        assert successes[row] == pytest.approx(sum(forgetting ** (now - r) * sum(x) for r, x in seen), rel=1e-4)
        assert failures[row] == pytest.approx(
            sum(forgetting ** (now - r) * (len(x) - sum(x)) for r, x in seen), rel=1e-4
        )
        assert history.visits[row] == len(seen)
        if not seen:
            assert np.isnan(history.last_rate[row])
            assert history.last_seen[row] == -1
            continue
        weights = np.array(
            [(1 - step) ** (len(seen) - 1)] + [step * (1 - step) ** (len(seen) - 1 - i) for i in range(1, len(seen))]
        )
        rates = np.array([np.mean(x) for _, x in seen])
        assert weights.sum() == pytest.approx(1)
        mean = weights @ rates
        assert history.rate_mean[row] == pytest.approx(mean, rel=1e-4)
        assert history.rate_var[row] == pytest.approx(weights @ (rates - mean) ** 2, rel=1e-3, abs=1e-6)
        assert history.spread[row] == pytest.approx(weights @ np.array([2 * np.std(x) for _, x in seen]), rel=1e-4)
        assert history.entropy[row] == pytest.approx(weights @ np.array([len(x) for _, x in seen]), rel=1e-4)
        assert history.last_seen[row] == seen[-1][0]
        assert history.last_rate[row] == pytest.approx(rates[-1])
        trailing = list(itertools.takewhile(lambda v: len(set(v[1])) == 1, reversed(seen)))
        assert history.constant_run[row] == len(trailing)


@pytest.mark.parametrize(
    ("rewards", "rate", "spread", "mixed"),
    [
        ([0.0, 1.0, 1.0, 1.0], 0.75, 2 * np.sqrt(3) / 4, True),
        ([1.0, 1.0], 1.0, 0.0, False),
        ([None, 0.0, float("nan"), float("inf")], 0.0, 0.0, False),
        ([0.25, 0.75], 0.5, 0.5, True),
        ([0.1 + 0.2, 0.3], 0.3, 0.0, True),  # not equal as floats: the spread is tiny, the group still mixed
    ],
)
def test_a_group_is_summarised(rewards: list[float | None], rate: float, spread: float, mixed: bool) -> None:
    group = RewardScale().group(rewards)
    assert group is not None
    assert (group.rate, group.spread) == (pytest.approx(rate), pytest.approx(spread, abs=1e-12))
    assert group.mixed is mixed
    assert group.n == sum(r is not None and bool(np.isfinite(r)) for r in rewards)


def test_the_reward_scale_widens_to_what_it_sees() -> None:
    scale = RewardScale()
    assert scale.group([-1.0, 1.0]) == Group(2, 0.5, 1.0, True, advantage=1.0, disagreement=1.0)
    assert (scale.low, scale.high) == (-1.0, 1.0)
    assert scale.group([0.0, 0.0]) == Group(2, 0.5, 0.0, False)
    group = scale.group([-1e308, 1e308, 1e308, None])
    assert group is not None
    assert group.rate == pytest.approx(2 / 3)
    assert 0 < group.spread <= 1
    assert scale.group([None, float("nan")]) is None
    before = (scale.low, scale.high)
    scale.group([float("inf")])
    assert (scale.low, scale.high) == before
    assert RewardScale().group([5.0], learn=False) == Group(1, 1.0, 0.0, False)


def test_equal_rewards_on_shifted_scales_give_equal_estimates() -> None:
    zero_one, shifted = dopr(**FLAT), dopr(**FLAT)
    shifted.scale.low, shifted.scale.high = -10.0, 30.0
    for rewards in ([0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]):
        feed(zero_one, "p1", [float(r) for r in rewards])
        feed(shifted, "p1", [-10.0 + 40.0 * r for r in rewards])
    assert score_of(zero_one, 0, 1) == pytest.approx(score_of(shifted, 0, 1), rel=1e-6)


# -- acquisition ---------------------------------------------------------------------------------------------------


def rolled_out(outcomes: tuple[bool, ...], wrong_cap: int, right_cap: int) -> bool:
    """Whether the sequential process, fed with ``outcomes`` one by one, ends mixed."""
    for n in itertools.count(1):
        so_far = outcomes[:n]
        if len(set(so_far)) == 2:
            return True
        if n >= (right_cap if so_far[0] else wrong_cap):
            return False
    raise AssertionError


@pytest.mark.parametrize(("wrong_cap", "right_cap"), [(1, 1), (2, 2), (8, 8), (8, 2), (3, 7), (10, 4)])
@pytest.mark.parametrize("p", [0.0, 0.03, 0.5, 0.9, 1.0])
def test_mixed_probability_equals_the_enumerated_process(p: float, wrong_cap: int, right_cap: int) -> None:
    longest = max(wrong_cap, right_cap)
    exact = sum(
        p ** sum(o) * (1 - p) ** (longest - sum(o))
        for o in itertools.product((False, True), repeat=longest)
        if rolled_out(o, wrong_cap, right_cap)
    )
    got = acquisition.mixed_probability(np.array([p]), wrong_cap, right_cap)[0]
    assert got == pytest.approx(exact, abs=1e-12)
    assert got >= 0


def test_mixed_probability_matches_simulated_sequential_rollouts_in_whole_groups() -> None:
    """The caps are multiples of the chunk here, as in the default: chunks change nothing about the chance."""
    rng, sequential, n = np.random.default_rng(0), SequentialRollouts(chunk=4, wrong_cap=16, right_cap=8), 4000
    for p in (0.05, 0.5, 0.85):
        mixed = 0
        for _ in range(n):
            rewards: list[float | None] = (rng.random(4) < p).astype(float).tolist()
            while (verdict := sequential.review(rewards)).action == "more":
                rewards += (rng.random(verdict.rollouts) < p).astype(float).tolist()
            mixed += is_mixed(rewards)
        expected = acquisition.mixed_probability(np.array([p]), 16, 8)[0]
        assert mixed / n == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / n) + 1e-9)


def test_the_count_bonus_is_ucb1_with_a_pseudo_visit_and_falls_with_visits() -> None:
    bonus = acquisition.upper_confidence_bonus(np.array([0.0, 1.0, 8.0]), 100)
    assert bonus == pytest.approx(np.sqrt(np.log(101) / np.array([1, 2, 9])))
    assert acquisition.upper_confidence_bonus(np.zeros(1), 0)[0] == 0
    assert acquisition.visit_damping(np.array([0.0, 3.0]), 0.5) == pytest.approx([1, 0.5])
    assert acquisition.visit_damping(np.array([0.0, 3.0]), 0).tolist() == [1, 1]


def test_entropy_modulation_is_relative_clipped_and_neutral_where_nothing_is_known() -> None:
    entropy = np.array([1.0, 2.0, 1e9, 1e-9, np.nan])
    assert acquisition.entropy_modulation(entropy, 1.0, 1.0) == pytest.approx([1, 2, 4, 0.25, 1])
    assert acquisition.entropy_modulation(entropy, 1.0, 0.5) == pytest.approx([1, np.sqrt(2), 2, 0.5, 1])
    for mean in (0.0, float("nan"), -1.0):
        assert acquisition.entropy_modulation(entropy, mean, 1.0).tolist() == [1] * 5
    assert acquisition.entropy_modulation(entropy, 1.0, 0.0).tolist() == [1] * 5


# -- choosers ------------------------------------------------------------------------------------------------------


def test_argmax_takes_the_highest_first_and_breaks_ties_at_random() -> None:
    rng = np.random.default_rng(0)
    assert chooser.argmax(np.array([0.1, 3.0, 2.0]), 2, rng).tolist() == [1, 2]
    firsts = np.bincount(
        [int(chooser.argmax(np.array([1.0, 1.0, 0.5, 1.0]), 1, rng)[0]) for _ in range(3000)], minlength=4
    )
    assert firsts[2] == 0
    assert np.abs(firsts[[0, 1, 3]] - 1000).max() < 5 * np.sqrt(1000)


def test_sampling_is_proportional_to_the_scores_on_any_scale() -> None:
    for scale in (1.0, 1e-12, 1e12):
        rng, scores = np.random.default_rng(1), np.array([0.0, 1.0, 2.0, 5.0]) * scale
        counts = np.bincount([int(chooser.sample(scores, 1, rng)[0]) for _ in range(8000)], minlength=4)
        expected = 8000 * scores / scores.sum()
        assert counts[0] == 0
        assert ((counts[1:] - expected[1:]) ** 2 / expected[1:]).sum() < 13.8  # chi-square with 2 degrees, p = .001


def test_sampling_fills_up_at_random_where_scores_are_zero() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        got = chooser.sample(np.array([0.0, 4.0, 0.0, 0.0]), 3, rng).tolist()
        assert got[0] == 1
        assert len(set(got)) == 3
    seconds = np.bincount(
        [int(chooser.sample(np.array([0.0, 4.0, 0.0, 0.0]), 2, rng)[1]) for _ in range(3000)], minlength=4
    )
    assert seconds[1] == 0
    assert np.abs(seconds[[0, 2, 3]] - 1000).max() < 5 * np.sqrt(1000)


def test_the_dopr_rule_samples_or_maximises_as_told() -> None:
    scores = np.array([1.0, 3.0])
    picks = {
        s: [int(dopr(2, sampling=s, config={"seed": i}).choose(scores, 1)[0]) for i in range(400)]
        for s in (False, True)
    }
    assert sum(picks[False]) == 400
    assert 0.65 < np.mean(picks[True]) < 0.85


def test_the_control_of_the_choice_ignores_the_score() -> None:
    picks = [int(dopr(3, random=True, config={"seed": i}).choose(np.array([0.0, 9.0, 1.0]), 1)[0]) for i in range(900)]
    assert np.abs(np.bincount(picks, minlength=3) - 300).max() < 5 * np.sqrt(300)


def test_random_one_is_uniform_and_uniform_takes_the_whole_batch() -> None:
    random_one = make_selector("random-one", ids(10), SelectorConfig())
    counts = np.bincount([random_one.ask()[0].row for _ in range(5000)], minlength=10)
    assert ((counts - 500) ** 2 / 500).sum() < 27.9  # chi-square with 9 degrees, p = .001
    batch = make_selector("uniform", ids(10), SelectorConfig(prompts_per_round=5))
    assert sorted(p.row for _ in range(2) for p in batch.ask()) == list(range(10))


# -- clusters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "shift", "dimensions"), [(1.0, 0.0, 4), (1e6, -3e7, 8), (1e-6, 0.0, 4), (1e15, 0.0, 3), (1.0, 0.0, 200)]
)
def test_clusters_recover_separated_blobs(scale: float, shift: float, dimensions: int) -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(6), 50)
    centres = 20 * rng.standard_normal((6, dimensions))
    labels = cluster_features((centres[truth] + rng.standard_normal((300, dimensions))) * scale + shift, 12, 0)
    assert all(len(set(truth[labels == c])) == 1 for c in np.unique(labels))  # asked for more than there are: all pure
    assert len(np.unique(labels)) >= 6


def test_constant_columns_do_not_drown_the_ones_that_vary() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 40)
    noise = 1e5 + 1e-7 * rng.standard_normal((80, 30))  # rounding error of a constant
    labels = cluster_features(np.hstack([noise, truth[:, None] * 10.0]), 2, 0)
    assert len(set(zip(truth.tolist(), labels.tolist(), strict=True))) == 2


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 8), (3, 8), (10, 10)])
def test_fewer_rows_than_clusters_are_fine(n: int, k: int) -> None:
    labels = cluster_features(np.random.default_rng(0).standard_normal((n, 3)), k, 0)
    assert labels.shape == (n,)
    assert set(labels.tolist()) <= set(range(k))


def test_identical_rows_and_no_columns_fall_into_one_cluster() -> None:
    assert set(cluster_features(np.ones((20, 5)), 4, 0).tolist()) == {0}
    assert set(cluster_features(np.empty((20, 0)), 4, 0).tolist()) == {0}


def test_clusters_depend_on_the_seed_alone_and_refuse_what_is_not_finite() -> None:
    x = np.random.default_rng(0).standard_normal((5000, 3))  # more rows than the fit looks at
    assert (cluster_features(x, 16, 1) == cluster_features(x, 16, 1)).all()
    assert (cluster_features(x, 16, 1) != cluster_features(x, 16, 2)).any()
    with pytest.raises(ConfigError, match="holding NaN or infinity"):
        cluster_features(np.array([[1.0], [np.nan]]), 2, 0)
    with pytest.raises(ConfigError, match=r"got shape \(4,\)"):
        cluster_features(np.ones(4), 2, 0)
    assert [default_clusters(n) for n in (1, 8, 100, 10**6)] == [1, 1, 12, 64]


# -- review and memory ---------------------------------------------------------------------------------------------

CAPS = SequentialRollouts(chunk=4, wrong_cap=16, right_cap=8)


@pytest.mark.parametrize(
    ("rewards", "action"),
    [
        ([0, 1, 1, 1], "keep"),  # mixed
        ([0] * 4, "more"),
        ([0] * 12, "more"),
        ([0] * 16, "keep"),  # the cap of all-wrong groups
        ([0] * 13, "keep"),  # another whole chunk would pass the cap
        ([1] * 4, "more"),
        ([1] * 8, "keep"),  # the cap of all-right groups
        ([0.5] * 8, "more"),  # constant but not right: as if wrong
        ([None] * 4, "keep"),  # nothing can be scored: more of it would not help
        ([None, 0, 0, None], "more"),
        ([None, 1, 0, None], "keep"),
        ([float("nan"), 0, 0, float("inf")], "more"),
    ],
)
def test_sequential_rollouts_stop_at_the_first_mixed_group(rewards: list[float | None], action: str) -> None:
    verdict = CAPS.review(rewards)
    assert verdict.action == action
    assert verdict.rollouts == (4 if action == "more" else 0)


def test_fixed_groups_never_ask_for_more_and_right_is_relative_to_the_scale() -> None:
    fixed = SequentialRollouts(chunk=4, wrong_cap=4, right_cap=4)
    assert all(fixed.review(r).action == "keep" for r in ([0.0] * 4, [1.0] * 4, [None] * 4))
    assert CAPS.review([1.0] * 8, top=2.0).action == "more"
    assert CAPS.review([2.0] * 8, top=2.0).action == "keep"


@pytest.mark.parametrize("g", [2, 3, 8, 16, 64])
def test_the_rule_s_own_caps_fit_every_group_size(g: int) -> None:
    searched = 3 * g if g > 2 else g  # two at a time of two are plain groups
    for options, deepest in (({}, searched), ({"search_depth": 1}, g), ({"search": False}, g)):
        selector = dopr(config={"group_size": g}, **options)
        assert (selector.rollouts.chunk, selector.rollouts.wrong_cap, selector.rollouts.right_cap) == (2, g, 2)
        for reward, cap in ((0.0, deepest), (1.0, 2)):
            n = 2
            while (verdict := selector.review("p0", [reward] * n)).action == "more":
                n += verdict.rollouts
            assert cap - 2 < n <= cap  # whole chunks only
    plain = make_selector("random-one", ids(9), SelectorConfig(group_size=g)).rollouts
    assert (plain.chunk, plain.wrong_cap, plain.right_cap) == (g, g, g)


def success(i: int, length: int = 2) -> Success:
    return Success(f"p{i}", np.arange(i, i + 3), np.full(length, i), start=i % length)


def test_the_success_memory_is_bounded_and_draws_distinct_ones() -> None:
    memory, rng = SuccessMemory(5), np.random.default_rng(0)
    assert memory.draw(3, rng) == []
    for i in range(12):
        memory.add(success(i))
    assert len(memory) == 5
    drawn = [s.prompt_id for s in memory.draw(4, rng)]
    assert len(set(drawn)) == 4
    assert {s.prompt_id for s in memory.draw(99, rng)} == {f"p{i}" for i in range(7, 12)}


def test_a_full_memory_keeps_what_is_rare_and_draws_keys_by_their_weights() -> None:
    memory, rng = SuccessMemory(6), np.random.default_rng(0)
    memory.add(success(0), key=9)
    for i in range(1, 20):
        memory.add(success(i), key=i % 2)
    assert len(memory) == 6
    assert sorted(set(memory.state_dict()["keys"].tolist())) == [0, 1, 9]
    assert [memory.count(key) for key in (0, 1, 9)] == [3, 2, 1] or [memory.count(key) for key in (0, 1, 9)] == [
        2,
        3,
        1,
    ]
    names = [memory.draw(1, rng, lambda keys: np.array([1.0, 1.0, 2.0]))[0].prompt_id for _ in range(4000)]
    assert names.count("p0") / 4000 == pytest.approx(0.5, abs=0.04)


def test_the_rule_replays_where_there_is_still_something_to_learn() -> None:
    selector = dopr(labels=[0] * 20 + [1] * 20, clusters=2, config={"replay": 1})
    for _ in range(10):
        feed(selector, "p0", [1.0] * 8)
        feed(selector, "p39", [0.0] * 7 + [1.0])
        for prompt in ("p0", "p0", "p0", "p39"):
            selector.remember(replace(success(1), prompt_id=prompt))
    drawn = [selector.replay()[0].prompt_id for _ in range(400)]
    assert drawn.count("p39") > 320
    plain = dopr(labels=[0] * 20 + [1] * 20, clusters=2, config={"replay": 1}, balanced_replay=False)
    for _ in range(10):
        for prompt in ("p0", "p0", "p0", "p39"):
            plain.remember(replace(success(1), prompt_id=prompt))
    drawn = [plain.replay()[0].prompt_id for _ in range(800)]
    assert drawn.count("p39") / 800 == pytest.approx(0.25, abs=0.06)


def test_solved_prompts_come_after_all_others_while_some_were_never_rolled_out() -> None:
    def chosen(solved: int, *, failed: str = "", fresh: bool = True, **config: int) -> set[str]:
        selector = dopr(4, config=config, fresh=fresh, **FLAT)
        for prompt in range(solved):
            feed(selector, f"p{prompt}", [1.0] * 8 if prompt else [0.0, 1.0])  # p0 is the most informative by far
        if failed:
            feed(selector, failed, [0.0] * 8)
        return {selector.ask()[0].prompt_id for _ in range(12)}

    assert chosen(1) == {"p1", "p2", "p3"}
    assert chosen(2) == {"p2", "p3"}
    assert chosen(2, failed="p2") <= {"p2", "p3"}  # what has failed may come again
    assert chosen(4) == {"p0"}  # all have been seen: the score alone decides
    assert chosen(2, fresh=False) == {"p0"}
    assert chosen(2, replay=0) == {"p0"}  # nothing is replayed


def test_it_does_not_matter_whether_a_success_is_still_in_the_memory() -> None:
    selector = dopr(4, config={"memory": 1}, **FLAT)
    for prompt in ("p0", "p1"):
        feed(selector, prompt, [0.0, 1.0])
        selector.remember(replace(success(1), prompt_id=prompt))
    assert {selector.ask()[0].prompt_id for _ in range(12)} == {"p2", "p3"}


def test_a_reward_short_of_success_does_not_solve_a_prompt() -> None:
    selector = dopr(4, **FLAT)
    feed(selector, "p0", [0.0, 0.5])
    assert "p0" in {selector.ask()[0].prompt_id for _ in range(40)}


def test_impossible_prompts_do_not_take_every_round_of_a_small_pool() -> None:
    selector, asked = dopr(6), Counter()
    for _ in range(200):
        (pick,) = selector.ask()
        asked[pick.prompt_id] += 1
        possible = pick.prompt_id != "p0"
        selector.tell(pick.prompt_id, [0.0, 1.0] if possible else [0.0] * 8)
        if possible:
            selector.remember(replace(success(1), prompt_id=pick.prompt_id))
    assert len(asked) == 6
    assert asked["p0"] < 40  # more than its share would be 200 / 6


def test_which_prompts_were_solved_is_known_after_a_resume_with_another_pool() -> None:
    old, new = dopr(4), make_selector("dopr", ["p2", "p3", "p4"], SelectorConfig(), {})
    feed(old, "p0", [0.0, 1.0])
    feed(old, "p2", [0.0, 1.0])
    new.load_state_dict(old.state_dict())
    assert {new.ask()[0].prompt_id for _ in range(12)} == {"p3", "p4"}  # p2 was solved, p0 has left the pool
    numbered, larger = (make_selector("dopr", range(n), SelectorConfig(), {}) for n in (3, 4))
    feed(numbered, "1", [0.0, 1.0])
    larger.load_state_dict(numbered.state_dict())
    for selector in (numbered, larger):
        assert "1" not in {selector.ask()[0].prompt_id for _ in range(12)}


@pytest.mark.parametrize("lengths", [[], [1], [2, 5, 1, 9]])
def test_the_success_memory_survives_saving(lengths: list[int], tmp_path: Path) -> None:
    memory, restored = SuccessMemory(8), SuccessMemory(8)
    for i, length in enumerate(lengths):
        memory.add(success(i, length))
    restored.add(success(99))
    save_state(tmp_path / "m.npz", memory.state_dict())
    restored.load_state_dict(load_state(tmp_path / "m.npz"))
    first, second = (m.draw(8, np.random.default_rng(0)) for m in (memory, restored))
    assert [(s.prompt_id, s.start) for s in first] == [(s.prompt_id, s.start) for s in second]
    for a, b in zip(first, second, strict=True):
        assert a.prompt.tolist() == b.prompt.tolist()
        assert a.completion.tolist() == b.completion.tolist()


def test_only_strategies_that_replay_remember() -> None:
    for replay, kept in ((0, 0), (3, 2)):
        selector = make_selector("random-one", ids(4), SelectorConfig(replay=replay))
        selector.remember(success(1))
        selector.remember(success(2))
        assert len(selector.memory) == len(selector.replay()) == kept
    assert dopr().n_replay == 8
    rewards = (1.0, 2.0, 0.99, 0.0, None, float("nan"), float("inf"), -float("inf"))
    assert [dopr().is_success(r) for r in rewards] == [True, True] + [False] * 6


def test_an_infinite_reward_is_no_success() -> None:
    selector = dopr(clusters=2)
    selector.set_features(None, np.arange(40, dtype=np.int32) % 2)
    before = selector.state_dict()
    assert selector.tell("p0", [float("inf")]) is None
    np.testing.assert_equal(selector.state_dict(), before)
    selector.tell("p0", [0.0, float("inf")])
    state = selector.state_dict()
    assert not state["unlocked"].any()
    assert not state["solved"].any()


# -- the dopr rule -------------------------------------------------------------------------------------------------


def test_before_anything_is_seen_every_prompt_scores_alike() -> None:
    scores = score_of(dopr(**FLAT), *range(40))
    assert np.ptp(scores) == 0
    assert scores[0] == pytest.approx(acquisition.mixed_probability(np.array([0.5]), 8, 2, 0.5)[0] * 0.5)


def test_an_unseen_prompt_takes_the_pooled_rate() -> None:
    selector = dopr(**FLAT)
    feed(selector, "p0", *[[1.0, 1.0, 1.0, 0.0]] * 20)
    p = selector.success_probability(np.array([7, 30]), None)
    assert p == pytest.approx([0.75, 0.75], abs=0.02)


def test_clusters_carry_what_is_learned_to_their_own_unseen_prompts_only() -> None:
    labels = [0] * 20 + [1] * 20
    selector = dopr(labels=labels, clusters=2, **FLAT)
    everyone = np.arange(40)
    feed(selector, "p20", [1.0] * 8)
    feed(selector, "p20", [1.0] * 8)
    before = selector.success_probability(everyone, None)
    feed(selector, "p0", [0.0] * 8)
    feed(selector, "p1", [0.0] * 8)
    after = selector.success_probability(everyone, None)
    assert (after[2:20] < before[2:20] - 0.3).all()
    assert np.ptp(after[2:20]) == 0
    assert (after[21:] > 0.85).all()  # moved only through the weak pooled prior
    assert (np.abs(after[21:] - before[21:]) < 0.1).all()
    without = dopr(**FLAT)
    for prompt in ("p0", "p1"):
        feed(without, prompt, [0.0] * 8)
    assert np.ptp(without.success_probability(everyone[2:], None)) == 0


def test_a_prompt_s_own_groups_move_it_away_from_its_cluster() -> None:
    selector = dopr(labels=[0] * 40, clusters=1, **FLAT)
    feed(selector, "p0", *[[1.0] * 8] * 6)
    for i in range(1, 13):
        feed(selector, f"p{i}", [0.0] * 8)
    p = selector.success_probability(np.array([0, 1, 39]), None)
    assert p[1] < p[2] < p[0]
    assert p[0] > 0.9


@pytest.mark.parametrize("n", [1, 2, 64])
def test_the_posterior_moves_whatever_the_number_of_rollouts(n: int) -> None:
    for reward in (0.0, 1.0):
        selector = dopr(**FLAT)
        feed(selector, "p3", [reward] * n)
        assert abs(selector.success_probability(np.array([3]), None)[0] - reward) < 0.5


def test_forgetting_moves_the_posterior_back_to_the_prior() -> None:
    def after(rounds: int, forgetting: float) -> float:
        selector = dopr(**FLAT | {"forgetting": forgetting})
        feed(selector, "p0", *[[0.0] * 8] * 4)
        selector.round += rounds
        return float(selector.success_probability(np.array([0]), None)[0])

    fading = [after(rounds, 0.98) for rounds in (0, 20, 100, 1000)]
    assert fading == sorted(fading)
    assert fading[0] < 0.05
    assert fading[-1] == pytest.approx(0.5, abs=0.01)
    assert after(0, 1.0) == after(1000, 1.0) < 0.05


def test_headroom_prefers_the_harder_of_two_equally_mixed_prompts() -> None:
    def scores(headroom: bool) -> np.ndarray:
        selector = dopr(
            config={"wrong_cap": 8, "right_cap": 8}, headroom=headroom, progress=False, search=False, **FLAT
        )
        for _ in range(3):
            feed(selector, "p0", [1, 0, 0, 0, 0, 0, 0, 0])
            feed(selector, "p1", [0, 1, 1, 1, 1, 1, 1, 1])
        return score_of(selector, 0, 1)

    without, with_ = scores(False), scores(True)
    assert without[0] == pytest.approx(without[1], rel=1e-6)
    assert with_[0] > 1.5 * with_[1]


def test_visit_damping_and_the_count_bonus_favour_what_was_seen_less() -> None:
    rewards: list[float | None] = [0.0, 1.0, 0.0, 1.0]

    def ratio(**options: Any) -> float:
        selector = dopr(fresh=False, **FLAT | options)
        feed(selector, "p0", *[rewards] * 3)
        seen, unseen = score_of(selector, 0, 1)
        return float(unseen / seen)

    plain = ratio()
    assert ratio(visit_power=1.0) == pytest.approx(4 * plain, rel=1e-6)
    assert ratio(visit_power=0.5) == pytest.approx(2 * plain, rel=1e-6)
    assert ratio(ucb=0.5) > plain
    assert ratio(ucb=1e6) == pytest.approx(2.0, rel=1e-3)  # sqrt(1 + 3 visits)


def test_visits_are_counted_by_cluster_where_there_are_clusters() -> None:
    selector = dopr(labels=[0] * 20 + [1] * 20, clusters=2, fresh=False, **FLAT | {"visit_power": 1.0})
    feed(selector, "p0", [0.0, 1.0, 0.0, 1.0])
    own, same, other = score_of(selector, 0, 1, 39)
    assert other > 1.9 * same
    assert same == pytest.approx(own, rel=0.2)


def test_entropy_shifts_the_choice_to_uncertain_prompts() -> None:
    def scores(power: float) -> np.ndarray:
        selector = dopr(fresh=False, **FLAT | {"entropy_power": power})
        for prompt, entropy in (("p0", 0.5), ("p1", 2.0)):
            feed(selector, prompt, [0.0, 1.0, 0.0, 1.0])
            selector.tell_entropy(prompt, entropy)
        return score_of(selector, 0, 1, 2)

    off, on = scores(0.0), scores(1.0)
    assert off[0] == pytest.approx(off[1], rel=1e-6)
    assert on[1] == pytest.approx(4 * on[0], rel=1e-5)
    assert on[0] < on[2] < on[1]  # an unseen prompt counts as its pool


def test_an_odd_entropy_is_ignored() -> None:
    selector = dopr()
    feed(selector, "p0", [0.0, 1.0])
    selector.tell_entropy("p0", float("nan"))
    selector.tell_entropy("p0", float("inf"))
    assert np.isnan(selector.estimators()["prompts"].entropy).all()


def test_temporal_and_within_volatility_disagree_where_they_should() -> None:
    """p0: half right every time (all spread is within). p1: swings between all wrong and all right (all over time)."""
    steady, swinging = [[0.0, 1.0, 0.0, 1.0]] * 8, [[0.0] * 4, [1.0] * 4] * 4
    scores = {}
    for volatility in ("within", "temporal", "both", "expected"):
        selector = dopr(**FLAT, volatility=volatility, headroom=False)
        for a, b in zip(steady, swinging, strict=True):
            feed(selector, "p0", a)
            feed(selector, "p1", b)
        scores[volatility] = score_of(selector, 0, 1)
    assert scores["within"][0] > 2 * scores["within"][1]
    assert scores["temporal"][1] > 2 * scores["temporal"][0]
    assert scores["both"] == pytest.approx((scores["within"] + scores["temporal"]) / 2)
    assert scores["expected"][0] == pytest.approx(scores["expected"][1], rel=1e-3)  # knows the rate only


@pytest.mark.parametrize("volatility", ["within", "temporal", "both"])
def test_volatility_of_the_unseen_is_optimistic_at_first_and_pooled_later(volatility: str) -> None:
    selector = dopr(**FLAT, volatility=volatility, headroom=False)
    assert score_of(selector, 5)[0] == pytest.approx(1.0)
    feed(selector, "p0", *[[0.0] * 8] * 30)
    seen, unseen = score_of(selector, 0, 5)
    assert seen < unseen < 0.3


def test_posterior_means_are_deterministic_and_draws_are_not() -> None:
    certain, drawn = dopr(thompson=False), dopr(thompson=True)
    for selector in (certain, drawn):
        feed(selector, "p0", [0.0, 1.0, 1.0, 1.0])
    rows = np.arange(40)
    assert (certain.score(rows) == certain.score(rows)).all()
    assert (drawn.score(rows) != drawn.score(rows)).any()
    draws = np.mean([drawn.success_probability(rows, drawn.rng) for _ in range(2000)], axis=0)
    assert draws == pytest.approx(certain.success_probability(rows, None), abs=0.03)


def test_unseen_prompts_of_a_cluster_share_one_draw() -> None:
    selector = dopr(labels=[0] * 20 + [1] * 20, clusters=2)
    feed(selector, "p0", [0.0, 1.0])
    p = selector.success_probability(np.arange(40), selector.rng)
    assert np.ptp(p[1:20]) == np.ptp(p[20:]) == 0
    assert p[1] != p[20]


def test_concentration_tells_homogeneous_clusters_from_mixed_ones() -> None:
    rng = np.random.default_rng(0)

    def learned(rates: np.ndarray) -> float:
        selector = dopr(len(rates), labels=[0] * len(rates), clusters=1)
        for i, rate in enumerate(rates):
            feed(selector, f"p{i}", (rng.random(8) < rate).astype(float).tolist())
        return selector.metrics()["concentration"]

    alike, unlike = learned(np.full(300, 0.4)), learned(rng.choice([0.02, 0.98], 300))
    assert alike > 15
    assert unlike < 0.7
    assert 1.0 < learned(rng.beta(0.8, 1.2, 300)) < 4.0  # a beta-binomial of concentration 2


def test_groups_that_cannot_be_scored_leave_no_trace() -> None:
    selector = dopr()
    feed(selector, "p0", [0.0, 1.0])
    before = selector.state_dict()
    assert selector.tell("p1", [None, None]) is None
    assert selector.tell("p0", [float("nan")] * 8) is None
    assert selector.tell("p0", []) is None
    after = selector.state_dict()
    for level, history in before["estimators"].items():
        for name, values in history.items():
            np.testing.assert_array_equal(values, after["estimators"][level][name], err_msg=f"{level}.{name}")
    assert (after["dispersion"] == before["dispersion"]).all()


def test_everything_switched_off_is_legal_and_uniform() -> None:
    selector = dopr(config={"replay": 0, "wrong_cap": 8, "right_cap": 8}, headroom=False, clusters=1, **FLAT)
    assert not selector.uses_features
    counts = np.bincount([p.row for _ in range(2000) for p in selector.ask()], minlength=40)
    assert ((counts - 50) ** 2 / 50).sum() < 72.1  # chi-square with 39 degrees, p = .001
    assert selector.replay() == []


@pytest.mark.parametrize("g", [2, 5, 8, 64])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_group_size_and_reward_scale_works(strategy: str, g: int) -> None:
    rng = np.random.default_rng(0)
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (-1e300, 1e300), (0.0, 1e-9)):
        selector = build(strategy, ids(30), group_size=g, prompts_per_round=2, candidates=10)
        for _ in range(15):
            picks = selector.ask()
            rollouts = [p.rollouts for p in picks]
            if strategy == "knapsack":
                assert (sum(rollouts), min(rollouts) >= 2) == (2 * g, True)
            else:
                assert rollouts == [{"speed": max(2, min(4, g // 2)), "dopr": 2}.get(strategy, g)] * 2
            for pick in picks:
                rewards = rng.choice([low, high], pick.rollouts).tolist()
                while more := selector.review(pick.prompt_id, rewards).rollouts:
                    rewards += rng.choice([low, high], more).tolist()
                assert len(rewards) <= 32 * g
                selector.tell(pick.prompt_id, rewards)
        assert np.isfinite(selector.candidate_scores).all()


# -- state ---------------------------------------------------------------------------------------------------------


def trained(n: int = 64, strategy: str = "dopr", pool: list[str] | range | None = None) -> Selector:
    selector = make_selector(strategy, ids(n) if pool is None else pool, SelectorConfig(seed=3))
    rng = np.random.default_rng(1)
    selector.set_features(rng.standard_normal((n, 4)))
    for i in range(40):
        pick = selector.ask()[0]
        selector.tell(pick.prompt_id, (rng.random(8) < pick.row / n).astype(float).tolist())
        selector.tell_entropy(pick.prompt_id, float(rng.random()))
        selector.remember(replace(success(i % 7), prompt_id=pick.prompt_id))
    return selector


def test_state_is_keyed_by_id_and_survives_shuffling_and_extension() -> None:
    old = trained()
    assert isinstance(old, Dopr)
    pool = [*ids(64)[::-1], *(f"new{i}" for i in range(36))]
    new = make_selector("dopr", pool, SelectorConfig(seed=3))
    assert isinstance(new, Dopr)
    new.load_state_dict(old.state_dict())
    rows = np.arange(64)
    assert (new.success_probability(63 - rows, None) == old.success_probability(rows, None)).all()
    assert (new.labels[63 - rows] == old.labels).all()
    assert new.n_clusters == old.n_clusters
    assert np.isfinite(new.score(np.arange(100))).all()
    assert new.metrics()["coverage"] == pytest.approx(old.metrics()["coverage"] * 64 / 100)
    shrunk = make_selector("dopr", ids(64)[:20], SelectorConfig(seed=3))
    shrunk.load_state_dict(old.state_dict())
    assert (shrunk.estimators()["prompts"].visits == old.estimators()["prompts"].visits[:20]).all()


def test_a_pool_of_numbers_works_without_names() -> None:
    selector = trained(pool=range(100, 164))
    pick = selector.ask()[0]
    assert pick.prompt_id == str(100 + pick.row)
    before = int(selector.estimators()["prompts"].visits[pick.row])
    selector.tell(pick.prompt_id, [0.0, 1.0])
    assert selector.estimators()["prompts"].visits[pick.row] == before + 1
    for wrong in ("99", "-1", "164", "x"):
        with pytest.raises(ConfigError, match="not in this selector's pool of 64"):
            selector.tell(wrong, [0.0, 1.0])
    restored = make_selector("dopr", range(100, 164), SelectorConfig(seed=3))
    restored.load_state_dict(selector.state_dict())
    assert [restored.ask() for _ in range(5)] == [selector.ask() for _ in range(5)]


def test_state_is_a_snapshot_not_a_view() -> None:
    selector = trained()
    state = selector.state_dict()
    before = state["estimators"]["prompts"]["visits"].copy()
    for _ in range(5):
        selector.tell(selector.ask()[0].prompt_id, [0.0, 1.0])
    assert (state["estimators"]["prompts"]["visits"] == before).all()


def test_a_state_of_another_kind_is_refused() -> None:
    state = trained().state_dict()
    with pytest.raises(ConfigError, match="of strategy 'dopr', version 11; here runs 'random-one'"):
        make_selector("random-one", ids(64), SelectorConfig()).load_state_dict(state)
    with pytest.raises(ConfigError, match="version 99"):
        dopr(64).load_state_dict(state | {"version": 99})
    with pytest.raises(ConfigError, match="has 8 clusters, this run 4"):
        dopr(64, clusters=4).load_state_dict(state)
    for key in ("estimators", "rng", "memory", "scale", "labels"):
        with pytest.raises(KeyError, match=key):
            dopr(64).load_state_dict({k: v for k, v in state.items() if k != key})


def test_a_broken_state_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    with pytest.raises(RunError, match="is missing"):
        load_state(path)
    save_state(path, trained().state_dict())
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as stored:
        inside = stored.infolist()[1].header_offset + 200  # of the first array's values
    changed = raw[:inside] + bytes([raw[inside] ^ 1]) + raw[inside + 1 :]
    for broken in (b"", raw[:10], raw[: len(raw) // 2], raw[:-5], b"{}", changed):
        path.write_bytes(broken)
        with pytest.raises(RunError, match="cannot be read as selector state"):
            load_state(path)
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


# -- wrong use -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"group_size": 1}, "group size is 1; .* at least 2 rollouts"),
        ({"prompts_per_round": 0}, "prompts_per_round is 0; it must be at least 1"),
        ({"candidates": 0}, "candidates is 0"),
        ({"replay": -1}, "replay is -1; it must be at least 0"),
        ({"memory": 0}, "memory is 0"),
        ({"wrong_cap": 1}, "wrong_cap is 1, below the chunk of 2"),
        (
            {"candidates": 31},
            "candidate batch of 31 prompts cannot be drawn from a pool of 30. Set --candidates to at most 30",
        ),
        ({"prompts_per_round": 31}, "pool of 30"),
        ({"prompts_per_round": 9, "candidates": 8}, "9 prompts per round cannot come from 8 candidates"),
    ],
)
def test_impossible_settings_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_selector("dopr", ids(30), SelectorConfig(**config))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volatilty": "within"}, "no option 'volatilty'. Did you mean 'volatility'"),
        ({"volatility": "withn"}, "use expected, within, temporal or both"),
        ({"headroom": 1}, "Option 'headroom'"),
        ({"ucb": True}, "Option 'ucb'"),
        ({"ucb": "much"}, "Option 'ucb'"),
        ({"ucb": -0.1}, "ucb is -0.1; it must be >= 0"),
        ({"ucb": float("inf")}, "ucb is inf; it must be >= 0 and finite"),
        ({"prior_strength": float("nan")}, "prior_strength is nan"),
        ({"prior_strength": float("inf")}, "prior_strength is inf"),
        ({"forgetting": 0.0}, "forgetting is 0.0; it must be > 0 and <= 1"),
        ({"step": 1.5}, "step is 1.5"),
        ({"visit_power": 11}, "visit_power is 11"),
        ({"clusters": 0}, "at least 1"),
        ({"clusters": 2.5}, "Option 'clusters' of strategy 'dopr' is 2.5; it must be a whole number or nothing"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_selector("dopr", ids(30), SelectorConfig(), options)


def test_unknown_strategies_options_ids_and_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown strategy 'random_one'. Did you mean 'random-one'"):
        make_selector("random_one", ids(3), SelectorConfig())
    with pytest.raises(ConfigError, match=r"'uniform' has no option 'ucb'. It takes none"):
        make_selector("uniform", ids(3), SelectorConfig(), {"ucb": 1.0})
    with pytest.raises(ConfigError, match="must be unique"):
        make_selector("uniform", ["a", "b", "a"], SelectorConfig())
    with pytest.raises(ConfigError, match="pool of 0"):
        make_selector("dopr", [], SelectorConfig())
    with pytest.raises(ConfigError, match="'p9' is not in this selector's pool of 3"):
        dopr(3).tell("p9", [0.0, 1.0])
    for labels in ([0, 1], [0, 1, 5], [0, -1, 1]):
        with pytest.raises(ConfigError, match="Cluster labels must have shape"):
            dopr(3, clusters=2).set_features(None, np.array(labels))


def test_caps_are_measured_by_the_chunk_that_the_strategy_begins_with() -> None:
    assert make_selector("dopr", ids(20), SelectorConfig(right_cap=4, wrong_cap=4)).rollouts.right_cap == 4
    for name, config in (
        ("uniform", {"right_cap": 4}),
        ("dopr", {"wrong_cap": 1}),
        ("dopr", {"chunk": 4, "right_cap": 2}),
    ):
        with pytest.raises(ConfigError, match="below the chunk of"):
            make_selector(name, ids(20), SelectorConfig(**config))


def test_a_cluster_whose_counts_were_forgotten_says_nothing_of_how_prompts_scatter() -> None:
    """Its first success wipes a cluster's counts; the next group has no rate to deviate from."""
    selector = make_selector("dopr", ids(8), SelectorConfig(candidates=8), {"clusters": 2})
    selector.set_features(None, np.arange(8, dtype=np.int32) % 2)
    selector.tell("p0", [0.0] * 4)
    selector.tell("p2", [0.0, 1.0])  # unlocks the cluster
    known = selector._dispersion.sums.copy()
    selector.tell("p4", [1.0, 1.0])
    np.testing.assert_array_equal(selector._dispersion.sums, known)
    selector.tell("p6", [1.0, 0.0])  # now there is a rate
    assert (selector._dispersion.sums != known).all()
