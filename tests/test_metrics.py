from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopr.metrics import (
    Interval,
    avg_at_n,
    bootstrap,
    maj_at_n,
    mean_interval,
    over_seeds,
    paired_difference,
    pass_at_k,
    proportion_interval,
    success_matrix,
)


def brute_pass_at_k(n: int, c: int, k: int) -> float:
    """Share of the k-subsets of n samples that hold at least one of the c correct ones."""
    subsets = list(itertools.combinations(range(n), k))
    return sum(any(i < c for i in s) for s in subsets) / len(subsets)


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_equals_counting_all_subsets(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            assert float(pass_at_k(n, c, k)) == pytest.approx(brute_pass_at_k(n, c, k), abs=1e-12)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_equals_the_exact_binomials(case):
    n, c, k = case
    assert float(pass_at_k(n, c, k)) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)


@given(st.integers(2, 200), st.data())
def test_pass_at_k_rises_with_k_and_with_correct_samples(n, data):
    c = data.draw(st.integers(0, n - 1))
    k = data.draw(st.integers(1, n - 1))
    here = pass_at_k(n, c, k)
    assert pass_at_k(n, c, k + 1) >= here - 1e-12
    assert pass_at_k(n, c + 1, k) >= here - 1e-12


def test_pass_at_k_stays_finite_where_binomials_overflow():
    value = float(pass_at_k(100_000, 1, 50_000))
    assert value == pytest.approx(0.5)


def test_pass_at_k_takes_arrays_and_broadcasts():
    values = pass_at_k(8, np.array([0, 1, 8]), 4)
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("n", "c", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1), ([8, 3], [1, 1], 4), ([], [], 1)]
)
def test_pass_at_k_refuses_what_has_no_meaning(n, c, k):
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(n, c, k)


def test_avg_at_n_is_pass_at_1():
    correct = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_allclose(avg_at_n(correct), pass_at_k(4, correct.sum(axis=1), 1))
    with pytest.raises(ValueError, match=r"\(P, n\)"):
        avg_at_n([1, 0])


def test_unscorable_samples_count_as_not_correct():
    got = success_matrix([[1.0, None], [float("nan"), 0.5], [0.9999999, 2]])
    np.testing.assert_array_equal(got, [[True, False], [False, False], [True, True]])


@pytest.mark.parametrize("rewards", [[], [[]], [[1.0], [1.0, 0.0]]])
def test_success_matrix_refuses_ragged_and_empty(rewards):
    with pytest.raises(ValueError, match="matrix"):
        success_matrix(rewards)


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["7", "7", "3"], [True, True, False], 1.0),
        (["7", "3", "3"], [True, False, False], 0.0),
        (["7", "3"], [True, False], 0.5),  # a tie, one of two right
        (["7", "3", "5", None], [True, False, False, False], 1 / 3),
        ([None, None, None, "7"], [False, False, False, True], 1.0),  # None never wins
        ([None, None], [False, False], 0.0),
        (["7", "7"], [True, False], 0.5),  # one of the two could not be scored
    ],
)
def test_majority_vote(answers, correct, expected):
    assert maj_at_n(answers, correct) == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.sampled_from(["1", "2", "3", None]), st.booleans()), min_size=1, max_size=12), st.randoms()
)
def test_majority_vote_does_not_depend_on_order(samples, random):
    before = maj_at_n(*zip(*samples, strict=True))
    random.shuffle(samples)
    assert maj_at_n(*zip(*samples, strict=True)) == pytest.approx(before)
    assert 0.0 <= before <= 1.0


def test_majority_vote_refuses_nothing_and_unequal_lengths():
    for answers, correct in [([], []), (["1"], [])]:
        with pytest.raises(ValueError, match="maj@n"):
            maj_at_n(answers, correct)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        interval = bootstrap(rng.normal(2.0, 1.0, size=60), rng=rng, level=0.9, resamples=400)
        hits += interval.low <= 2.0 <= interval.high
    assert 0.83 <= hits / 300 <= 0.95


def test_bootstrap_is_the_same_for_the_same_generator_state():
    values = np.random.default_rng(0).random(50)
    assert bootstrap(values, rng=np.random.default_rng(1)) == bootstrap(values, rng=np.random.default_rng(1))
    assert bootstrap(values, rng=np.random.default_rng(1)) != bootstrap(values, rng=np.random.default_rng(2))


def test_bootstrap_in_blocks_agrees_with_theory_for_many_problems():
    values = np.random.default_rng(0).normal(size=30_000)  # forces several blocks
    interval = bootstrap(values, rng=np.random.default_rng(1), resamples=200)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / np.sqrt(30_000), rel=0.25)


def test_bootstrap_takes_another_statistic():
    values = np.array([0.0, 0.0, 0.0, 0.0, 100.0])
    assert bootstrap(values, np.median, rng=np.random.default_rng(0)).estimate == 0.0


def test_bootstrap_of_one_problem_has_no_width():
    assert bootstrap([0.25], rng=np.random.default_rng(0)) == Interval(0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, float("nan")], [float("inf")]])
def test_intervals_refuse_empty_matrix_and_not_finite(values):
    for function in (bootstrap, mean_interval):
        with pytest.raises(ValueError, match="An interval needs"):
            function(values, rng=np.random.default_rng(0))


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_outside_0_1_is_refused(level):
    with pytest.raises(ValueError, match="level"):
        proportion_interval(1, 2, level=level)
    with pytest.raises(ValueError, match="level"):
        bootstrap([1.0], rng=np.random.default_rng(0), level=level)


def test_paired_difference_is_narrower_than_the_problems_spread():
    before = np.random.default_rng(0).random(200)  # problems differ a lot, the change does not
    after = before + 0.1
    interval = paired_difference(before, after)
    assert interval.low == pytest.approx(0.1) == interval.high
    assert paired_difference(after, before).estimate == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="same problems"):
        paired_difference(before, after[:-1])


@pytest.mark.parametrize("problems", [8, 20, 200])
def test_a_change_on_few_problems_is_covered_as_often_as_on_many(problems: int):
    """Each problem has a chance before and after, drawn once; ten samples of each."""
    rng, covered = np.random.default_rng(problems), 0
    for _ in range(500):
        chances = rng.uniform(0.1, 0.6, problems)
        before, after = (rng.binomial(10, chances + gain) / 10 for gain in (0.0, rng.uniform(0.0, 0.4, problems)))
        interval = paired_difference(before, after)
        covered += interval.low <= 0.2 <= interval.high
    assert 0.92 <= covered / 500 <= 0.98


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_its_estimate_and_stays_in_0_1(case):
    c, n = case
    interval = proportion_interval(c, n)
    assert 0.0 <= interval.low <= interval.estimate <= interval.high <= 1.0
    assert interval.high > interval.low
    if c == 0:
        assert interval.low == 0.0


def test_wilson_interval_equals_the_root_of_its_defining_equation():
    interval = proportion_interval(41, 100)
    for bound in (interval.low, interval.high):
        assert abs(0.41 - bound) / math.sqrt(bound * (1 - bound) / 100) == pytest.approx(1.959964, abs=1e-5)


def test_mean_interval_is_wilson_for_verdicts_and_bootstrap_for_shares():
    rng = np.random.default_rng(0)
    assert mean_interval([0.0, 0.0, 0.0], rng=rng) == proportion_interval(0, 3)
    assert mean_interval([0.5, 0.5], rng=rng) == Interval(0.5, 0.5, 0.5)


def test_an_interval_reads_well():
    interval = Interval(0.4123, 0.35, 0.471)
    assert str(interval) == "0.412 [0.350, 0.471]"
    assert f"{interval:.1%}" == "41.2% [35.0%, 47.1%]"
    assert f"{interval}" == str(interval)


def test_the_interval_of_an_evaluation_covers_the_true_accuracy():
    """Problems of different difficulty, four samples each: avg@4 and pass@4 against the accuracy over all problems."""
    rng = np.random.default_rng(11)
    problems, n, runs = 80, 4, 300
    hits = {"avg": 0, "pass": 0, "greedy": 0}
    chances = rng.beta(1.0, 2.0, size=(runs, problems))
    all_wrong = math.prod((2 + k) / (3 + k) for k in range(n))  # E[(1 - p)^n] for p ~ Beta(1, 2)
    truth = {"avg": 1 / 3, "pass": 1 - all_wrong, "greedy": 1 / 3}
    for row in chances:
        correct = rng.random((problems, n)) < row[:, None]
        intervals = {
            "avg": mean_interval(avg_at_n(correct), rng=rng, level=0.9),
            "pass": mean_interval(pass_at_k(n, correct.sum(axis=1), n), rng=rng, level=0.9),
            "greedy": mean_interval(correct[:, 0], rng=rng, level=0.9),
        }
        for name, interval in intervals.items():
            hits[name] += interval.low <= truth[name] <= interval.high
    assert all(0.84 <= hit / runs <= 0.96 for hit in hits.values()), hits


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_an_interval_over_few_seeds_covers_the_mean_as_often_as_it_says(seeds):
    rng = np.random.default_rng(seeds)
    found = [over_seeds(values) for values in rng.normal(0.1, 0.05, size=(4000, seeds))]
    assert np.mean([i.low <= 0.1 <= i.high for i in found]) == pytest.approx(0.95, abs=0.012)


def test_an_interval_over_seeds_has_students_quantile_and_stays_within_what_can_be():
    assert over_seeds([0.10, 0.12]).low == pytest.approx(0.11 - 12.7062 * 0.01, abs=1e-4)
    assert over_seeds([0.10, 0.12, 0.14]).low == pytest.approx(0.12 - 4.30265 * 0.02 / 3**0.5, abs=1e-5)
    assert over_seeds([0.9, 1.0, 0.8], least=0.0).high == 1.0
    assert over_seeds([0.4]) == Interval(0.4, -1.0, 1.0)
