"""What searches have found, and what the rule makes of it: a prompt whose search succeeds is worth a visit although it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.selection import Dopr, SelectorConfig, acquisition, make_selector
from dopr.selection.history import History, nested_mean
from dopr.selection.search_record import SearchRecord, octave
from dopr.train.state import load_state, save_state
from selection_kit import ids

EVERYONE = np.arange(24)


def dopr(**options: Any) -> Dopr:
    """24 prompts in four clusters; nothing is drawn, so that scores can be compared."""
    flat = {"thompson": False, "visit_power": 0.0, "entropy_power": 0.0, "fresh": False}
    selector = make_selector("dopr", ids(24), SelectorConfig(chunk=2), {"clusters": 4, **flat, **options})
    assert isinstance(selector, Dopr)
    selector.set_features(None, np.arange(24, dtype=np.int32) % 4)
    return selector


def test_rates_of_clusters_are_discounted_counts_with_the_rate_of_all_as_prior() -> None:
    record, rng = SearchRecord(3, 8), np.random.default_rng(0)
    np.testing.assert_array_equal(record.rates(np.arange(3)), 0.5)
    clusters, found = rng.integers(0, 2, 30), rng.random(30) < 0.7  # nothing of the third
    for cluster, success in zip(clusters.tolist(), found.tolist(), strict=True):
        record.learn(cluster, success, [0])
    weight = 0.98 ** np.arange(29, -1, -1)
    everywhere = ((weight * found).sum() + 1) / (weight.sum() + 2)
    own = [weight[clusters == c] @ np.stack([found, ~found], axis=1)[clusters == c] for c in range(3)]
    expected = [(2 * everywhere + s) / (2 + s + f) for s, f in own]
    np.testing.assert_allclose(record.rates(np.array([2, 0, 1, 0])), np.array(expected)[[2, 0, 1, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("failures", "depth"), [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2), (15, 2), (16, 3), (31, 3), (10**9, 15)]
)
def test_octaves_are_twice_as_deep_each(failures: int, depth: int) -> None:
    assert octave(failures, 8) == octave(3 * failures, 24) == depth


def test_what_a_search_promises_is_the_best_mean_over_where_it_is_given_up() -> None:
    record, rng = SearchRecord(2, 8), np.random.default_rng(3)
    for _ in range(60):
        n, found = int(rng.integers(2, 20)), bool(rng.random() < 0.4)
        record.learn(int(rng.integers(2)), found, range(2, n + 1))
        record.spend(found, n + 1)
    ahead = [octave(i, 8) for i in range(5, 24)]
    found, drawn = record.draws.sum(axis=0).T
    chances = (8 * ((8 * max(1 / 8, record.usual) + found) / (8 + drawn)) + record.draws[1, :, 0]) / (
        8 + record.draws[1, :, 1]
    )
    means = []
    for end in range(1, len(ahead) + 1):
        success = rng.random((300_000, end)) < chances[ahead[:end]]
        draws = np.where(success.any(axis=1), success.argmax(axis=1) + 1, end)
        means.append(success.any(axis=1).mean() / draws.mean())
    assert record.promised(1, range(5, 24)) == pytest.approx(max(means), rel=0.02)
    assert record.promised(1, range(5, 24)) >= chances[ahead[0]]


def test_before_the_first_search_a_draw_promises_as_much_as_others_have_paid() -> None:
    record = SearchRecord(3, 8)
    assert record.promised(0, range(6, 9)) == record.usual == 1 / 8
    for _ in range(10):
        record.spend(True, 2)
    assert record.promised(0, range(6, 9)) == pytest.approx(record.usual)
    assert record.usual > 0.3
    for _ in range(50):
        record.spend(False, 8)
    assert record.usual < 0.05
    assert record.promised(0, range(6, 9)) == pytest.approx(1 / 8)


@pytest.mark.parametrize("p", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("found", [0.0, 0.3, 1.0])
def test_a_group_teaches_if_rewards_differ_or_its_search_finds_something(p: float, found: float) -> None:
    rng, n = np.random.default_rng(1), 200_000
    right = rng.random((n, 8)) < p
    teaches = right.any(axis=1) & ~right[:, :2].all(axis=1) | (~right.any(axis=1) & (rng.random(n) < found))
    expected = acquisition.mixed_probability(np.array([p]), 8, 2, found)[0]
    assert teaches.mean() == pytest.approx(expected, abs=0.006)
    assert acquisition.mixed_probability(np.array([p]), 8, 2, 0.0) == acquisition.mixed_probability(np.array([p]), 8, 2)


def after_searches(**options: Any) -> np.ndarray[Any, Any]:
    """Scores where searches of cluster 0 have found a success and those of cluster 1 none, as long; by cluster."""
    selector = dopr(progress=False, **options)
    for i in range(3):
        selector.tell(f"p{4 * i}", [0.0] * 11 + [1.0])
        selector.tell(f"p{4 * i + 1}", [0.0] * 12)
    return selector.score(np.array([20, 21]))


def test_what_fails_but_is_found_by_searches_is_chosen_before_what_is_not() -> None:
    found, not_found = after_searches()
    plain_found, plain_not = after_searches(search=False)
    assert found > 1.3 * plain_found
    assert found - plain_found > 1.5 * (not_found - plain_not) > 0  # what searches found elsewhere counts a little


def test_without_a_search_nothing_is_expected_of_one() -> None:
    selector = dopr(search=False)
    for i in range(6):
        selector.tell(f"p{4 * i}", [0.0] * 8)
    p = selector.success_probability(EVERYONE, None)
    np.testing.assert_allclose(selector.score(EVERYONE), acquisition.mixed_probability(p, 8, 2) * (1 - p))


@pytest.mark.parametrize(
    ("rewards", "found", "given_up"),
    [
        ([0.0] * 24, 0, 1),
        ([0.0, 0.0, 0.0, 1.0], 1, 0),
        ([0.0, None, 0.0, 0.2, 0.0], 0, 1),  # a share of the reward is no success
        ([0.0, 1.0], 0, 0),  # mixed at once
        ([1.0, 1.0], 0, 0),
        ([None, None], 0, 0),
    ],
)
def test_groups_that_went_on_with_a_search_count(rewards: list[float | None], found: int, given_up: int) -> None:
    selector = dopr()
    selector.tell("p1", rewards)
    np.testing.assert_array_equal(selector.state_dict()["searches"]["counts"][1], [found, given_up])


def test_failures_that_were_no_reason_to_search_do_not_count() -> None:
    selector = dopr()
    for i in range(4):
        selector.tell(f"p{4 * i}", [1.0, 1.0])  # prompts of this cluster succeed
    assert not selector.review("p16", [0.0, 0.0]).search
    selector.tell("p16", [0.0, 0.0, 1.0])
    assert not selector.state_dict()["searches"]["counts"].any()


def test_a_first_group_all_right_says_what_its_cluster_can_do() -> None:
    selector = dopr()
    selector.tell("p1", [0.0, 0.0])
    selector.tell("p1", [1.0, 1.0])  # nothing was learned in between
    selector.tell("p2", [0.0, 1.0])  # was learned from
    right, mixed = selector.success_probability(np.array([21, 22]), None)
    assert right == pytest.approx((2 * 0.5 + 2) / (2 + 2))
    assert mixed == pytest.approx(0.5)


def test_the_record_is_saved(tmp_path: Path) -> None:
    selector, twin = dopr(), dopr()
    for i in range(8):
        selector.tell(f"p{i}", [0.0] * 5 + [float(i % 3 == 0)])
    save_state(tmp_path / "state.npz", selector.state_dict())
    twin.load_state_dict(load_state(tmp_path / "state.npz"))
    assert selector.state_dict()["searches"]["counts"].any()
    np.testing.assert_array_equal(twin.score(EVERYONE), selector.score(EVERYONE))


def test_nested_means_are_those_of_each_level_with_the_last_as_prior() -> None:
    pool, prompts = (History(n, forgetting=1.0, step=0.5) for n in (1, 3))
    pool.spread[:], pool.visits[:] = 0.2, 3
    prompts.spread[:], prompts.visits[:] = [0.9, 0.5, 0.1], [2, 0, 6]
    got = nested_mean([(pool, np.zeros(3, np.int64), 1.0), (prompts, np.arange(3), 2.0)], "spread", 1.0)
    above = (1 * 1.0 + 3 * 0.2) / 4
    np.testing.assert_allclose(got, [(2 * above + 2 * 0.9) / 4, above, (2 * above + 6 * 0.1) / 8], rtol=1e-6)


def test_a_group_that_ends_mixed_without_a_success_was_no_search() -> None:
    selector = dopr()
    before = selector._searches.rates(np.arange(4))
    assert selector.review("p0", [0.2, 0.5]).action == "keep"
    selector.tell("p0", [0.2, 0.5])  # partial credit
    np.testing.assert_array_equal(selector._searches.rates(np.arange(4)), before)
    assert selector._searches.in_vain[0] == 0
    selector.tell("p4", [0.2, 0.2, 0.2, 0.5])  # here one began
    assert selector._searches.in_vain[0] == 1
