"""Arithmetic of the benchmark suite, on numbers small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dopr.compare.scores import cost_ratio, over_worlds, scores, share_of_gain

NEVER = float("inf")


def test_a_ratio_is_that_of_the_medians() -> None:
    ratio = cost_ratio([900, 1000, 1200], [50, 100, 400], budget=5000)
    assert ratio.estimate == 10
    assert not ratio.at_least
    assert 900 / 400 <= ratio.low <= 10 <= ratio.high <= 1200 / 50
    same = cost_ratio([1000.0] * 5, [100.0] * 5, budget=5000)
    assert (same.estimate, same.low, same.high) == (10, 10, 10)


def test_a_reference_that_never_got_there_counts_its_budget_and_bounds_the_ratio_from_below() -> None:
    ratio = cost_ratio([1000, NEVER, NEVER], [100, 100, 100], budget=5000)
    assert ratio.at_least
    assert ratio.estimate == 50
    assert ratio.low == 10
    assert ratio.high == 50


def test_an_arm_that_never_got_there_has_the_ratio_zero() -> None:
    assert cost_ratio([1000, 1000, 1000], [NEVER] * 3, budget=5000).estimate == 0
    sometimes = cost_ratio([1000, 1000, 1000], [100, 100, NEVER], budget=5000)
    assert sometimes.estimate == 10
    assert sometimes.low == 0
    assert sometimes.high == 10


def test_the_base_policy_scores_nothing_and_the_best_arm_one() -> None:
    found = scores({"a": [0.4, 0.6], "b": [0.3, 0.3], "idle": [0.2, 0.2]}, base=0.2)
    assert {name: values.mean() for name, values in found.items()} == pytest.approx({"a": 1, "b": 1 / 3, "idle": 0})
    assert found["a"].tolist() == pytest.approx([2 / 3, 4 / 3])
    with pytest.raises(ValueError, match="does not exceed"):
        scores({"a": [0.1]}, base=0.2)


def test_worlds_count_alike_and_the_interval_is_students_over_seeds() -> None:
    worlds = [[np.array([0.5, 0.7])], [np.array([0.2, 0.2, 0.2, 0.2])]]
    interval = over_worlds(worlds)
    assert interval.estimate == pytest.approx(0.4)
    # Of the two seeds that differ the mean has the standard error .1, with one degree of freedom; two worlds halve it.
    assert (interval.low, interval.high) == pytest.approx((0.4 - 12.706 * 0.05, 0.4 + 12.706 * 0.05), rel=1e-3)
    with pytest.raises(ValueError, match="two seeds"):
        over_worlds([[np.array([0.5])]])
    with pytest.raises(ValueError, match="have 2, 3 of them"):
        over_worlds([[np.zeros(2), np.zeros(3)]], (1, -1))
    with pytest.raises(ValueError, match="not finite"):
        over_worlds([[np.array([0.5, np.nan])]])


def test_a_paired_difference_is_not_blurred_by_what_its_seeds_share() -> None:
    luck = np.random.default_rng(0).normal(size=8)
    worlds = [[luck + 0.1, luck]]
    paired = over_worlds(worlds, (1, -1))
    assert (paired.low, paired.high) == pytest.approx((0.1, 0.1))
    unpaired = over_worlds(worlds, (1, -1), paired=False)
    assert unpaired.low < 0 < unpaired.high


def test_arms_that_are_alike_are_seldom_told_apart() -> None:
    """Five worlds, of which one varies most, with five seeds each: 5 % of differences of nothing may be called one."""
    rng = np.random.default_rng(0)
    scales = np.array([0.2, 0.05, 0.05, 0.02, 0.02])
    drawn = rng.normal(size=(1000, 5, 2, 5)) * scales[:, None, None]
    found = [over_worlds([list(world) for world in worlds], (1, -1)) for worlds in drawn]
    wrong = sum(not one.low <= 0 <= one.high for one in found)
    assert 20 <= wrong <= 75


def test_a_share_of_a_gain_needs_a_gain() -> None:
    none, hidden, known = np.array([0.5, 0.5]), np.array([0.7, 0.7]), np.array([0.75, 0.75])
    share = share_of_gain([(none, hidden, known)])
    assert share is not None
    assert (share.estimate, share.low, share.high) == pytest.approx((0.8, 0.8, 0.8))
    assert share_of_gain([(none, hidden, none)]) is None
    assert share_of_gain([(none, hidden, np.array([0.75, 0.5]))]) is None


def test_a_share_of_a_gain_is_covered_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for noise in rng.normal(scale=0.12, size=(400, 3, 3, 5)):
        worlds = [(0.4 + blind, 0.6 + hidden, 0.65 + known) for blind, hidden, known in noise]
        share = share_of_gain(worlds)
        if share is not None:
            covered.append(share.low <= 0.8 <= share.high)
    assert len(covered) > 300
    assert 0.92 <= np.mean(covered) <= 0.99
