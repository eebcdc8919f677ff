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


def test_worlds_count_alike_and_seeds_are_resampled_within_them() -> None:
    worlds = [[np.array([0.5, 0.7])], [np.array([0.2, 0.2, 0.2, 0.2])]]
    interval = over_worlds(worlds, lambda mean: mean)
    assert interval.estimate == pytest.approx(0.4)
    assert (interval.low, interval.high) == pytest.approx((0.35, 0.45))


def test_a_paired_difference_is_not_blurred_by_what_its_seeds_share() -> None:
    luck = np.random.default_rng(0).normal(size=8)
    worlds = [[luck + 0.1, luck]]
    paired = over_worlds(worlds, lambda a, b: a - b)
    assert (paired.low, paired.high) == pytest.approx((0.1, 0.1))
    unpaired = over_worlds(worlds, lambda a, b: a - b, paired=False)
    assert unpaired.low < 0 < unpaired.high


def test_a_share_of_a_gain_needs_a_gain() -> None:
    none, hidden, known = np.array([0.5, 0.5]), np.array([0.7, 0.7]), np.array([0.75, 0.5])
    share = share_of_gain(none, hidden, known)
    assert share[0] == pytest.approx(0.8)
    assert np.isnan(share[1])
