"""The bounds' counts against slower, independent computations: mpmath, enumeration, exact distributions."""

from __future__ import annotations

import itertools
import math

import mpmath as mp
import numpy as np
import pytest
from scipy import stats

from dopr import theory

mp.mp.dps = 40


def slow_updates(p0: float, target: float, kappa: float) -> int:
    """Updates one by one, each the root of the divergence in mpmath."""

    def divergence(d: mp.mpf, p: mp.mpf) -> mp.mpf:
        return (p + d) * mp.log1p(d / p) + (1 - p - d) * mp.log1p(-d / (1 - p)) - kappa

    p, count, d = mp.mpf(p0), 0, mp.sqrt(mp.mpf(kappa) * p0)
    while p < target:
        if kappa >= -mp.log(p):
            return count + 1
        low, high = mp.mpf(0), (1 - p) * (1 - mp.mpf(10) ** -35)
        d = min(d, high / 2)
        for _ in range(60):  # Newton kept inside its bracket
            value = divergence(d, p)
            low, high = (d, high) if value < 0 else (low, d)
            step = value / (mp.log1p(d / p) - mp.log1p(-d / (1 - p)))
            if abs(step) < mp.mpf(10) ** -25 * d:
                break
            d = d - step if low < d - step < high else (low + high) / 2
        p, count = p + d, count + 1
    return count


@pytest.mark.parametrize(
    ("p0", "target", "kappa"),
    [(0.3, 0.8, 0.01), (0.3, 0.8, 0.5), (1e-9, 0.9, 0.02), (1e-9, 1e-6, 1e-9), (0.05, 1.0, 0.01), (0.5, 0.999, 1e-3),
     (0.2, 0.21, 1e-7), (0.9, 1.0, 5.0)],
)  # fmt: skip
def test_updates_are_counted_exactly(p0: float, target: float, kappa: float) -> None:
    assert theory.travel_updates(p0, target, kappa) == slow_updates(p0, target, kappa)


@pytest.mark.parametrize(("p0", "target"), [(0.3, 0.8), (1e-9, 0.9), (0.5, 1.0), (0.9, 0.9999)])
@pytest.mark.parametrize("kappa", [1e-8, 1e-12, 1e-30])
def test_counting_many_updates_at_once_follows_the_angle(p0: float, target: float, kappa: float) -> None:
    angle = mp.asin(mp.sqrt(mp.mpf(target))) - mp.asin(mp.sqrt(mp.mpf(p0)))
    updates = angle * mp.sqrt(2 / mp.mpf(kappa))
    assert abs(float(theory.travel_updates(p0, target, kappa)) / float(updates) - 1) < max(5e-3, 0)


def test_jumping_and_stepping_agree() -> None:
    """One in a hundred thousand nats: a jump in the middle against every single step."""
    from dopr.theory.divergence import reachable_step

    p, count = 0.3, 0
    while p < 0.8:
        p, count = p + float(reachable_step(p, 2e-7)), count + 1
    assert count - 1 <= theory.travel_updates(0.3, 0.8, 2e-7) <= count


def test_travel_takes_arrays_and_refuses_what_cannot_be() -> None:
    counts = theory.travel_updates([[0.1], [0.3]], [0.5, 0.8], 0.01)
    assert counts.shape == (2, 2)
    assert counts[1, 1] == theory.travel_updates(0.3, 0.8, 0.01)
    for bad in (
        (0.0, 0.5, 0.1),
        (1.0, 1.0, 0.1),
        (0.5, 0.5, 0.1),
        (0.5, 1.1, 0.1),
        (0.5, 0.6, 0.0),
        (np.nan, 0.5, 0.1),
    ):
        with pytest.raises(ValueError, match=r"must lie|nothing to travel"):
            theory.travel_updates(*bad)


def test_equal_rates_make_the_profile_bound_the_plain_one() -> None:
    for kappa in (1e-2, 1e-4):
        plain = float(theory.travel_updates(0.2, 0.8, kappa))
        assert plain - 1 - 0.03 * plain <= theory.profile_updates([0.2, 0.2], 0.8, kappa) <= plain


def test_uneven_rates_need_more_travel() -> None:
    uneven = theory.profile_updates([1e-3, 0.999], 0.9, 1e-4)
    assert uneven > 1.5 * float(theory.travel_updates(0.5, 0.9, 1e-4))


def test_the_profile_bound_lies_below_what_gradient_steps_need() -> None:
    """Greedy tilts of every prompt's log-odds obey the constraint; no count of theirs may lie below the bound."""
    rng = np.random.default_rng(3)
    for _ in range(4):
        p0 = rng.beta(0.5, 1.0, size=6).clip(1e-4, 1 - 1e-4)
        p, count = p0.copy(), 0
        target = float(p0.mean() + 0.7 * (1 - p0.mean()))
        while p.mean() < target:
            odds = np.log(p / (1 - p))
            low, high = 0.0, 5.0
            for _ in range(60):
                mid = (low + high) / 2
                low, high = (mid, high) if theory.kl(1 / (1 + np.exp(-odds - mid)), p).mean() < 2e-3 else (low, mid)
            p, count = 1 / (1 + np.exp(-odds - low)), count + 1
        assert theory.profile_updates(p0, target, 2e-3) <= count


def test_many_rates_are_rounded_towards_less_travel() -> None:
    rng = np.random.default_rng(0)
    few = rng.beta(1, 3, 60)
    many = np.concatenate([few + 1e-9 * k for k in range(3)])  # 180 rates, nearly the same profile
    fine, coarse = theory.profile_updates(few, 0.8, 1e-3), theory.profile_updates(many, 0.8, 1e-3)
    assert fine - 2 <= coarse <= fine


def test_total_divergence_is_that_of_one_tilt_and_exceeds_that_of_the_mean() -> None:
    rates = [0.1, 0.5, 0.0]
    least = theory.total_divergence(rates, 0.5)
    assert least >= float(theory.kl(0.5, 0.2))
    for a in np.linspace(0.51, 0.999, 200):  # every other way to the same mean costs more
        b = 1.5 - a
        if 0 < b < 1:
            assert least <= float(np.mean([theory.kl(a, 0.1), theory.kl(b, 0.5), 0.0])) + 1e-12
    assert theory.total_divergence([0.3], 0.8) == pytest.approx(float(theory.kl(0.8, 0.3)))
    with pytest.raises(ValueError, match=r"below 0\.66"):
        theory.total_divergence(rates, 0.9)


def test_rates_may_be_an_array_and_must_allow_a_mixed_group() -> None:
    found = theory.lower_bound(target=0.8, rates=np.array([0.1, 0.5]), strategies=6)
    assert found == theory.lower_bound(target=0.8, rates=[0.1, 0.5], strategies=6)
    with pytest.raises(ValueError, match="rates are all 0 or 1"):
        theory.lower_bound(target=0.8, rates=[0.0, 1.0])


def test_steps_lost_in_rounding_are_refused() -> None:
    for kappa in (1e-33, 1e-40):
        with pytest.raises(ValueError, match=r"lost in rounding.*Give a larger"):
            theory.travel_updates(0.3, 0.8, kappa)


def test_coverage_counts() -> None:
    for f in (1e-9, 1 / 16, 0.5):
        exact = mp.log(mp.mpf(0.05)) / mp.log(1 - mp.mpf(f))
        assert float(theory.coverage_instances(f, 0.05)) == pytest.approx(float(mp.ceil(exact)), rel=1e-12)
    assert theory.coverage_instances(1.0) == 1
    n = theory.coverage_all([1 / 16] * 16, 0.05)
    assert (1 - (15 / 16) ** n) ** 16 >= 0.95 > (1 - (15 / 16) ** (n - 1)) ** 16
    for pool, holders in ((2000, 125), (10, 3), (5, 5), (100, 1)):
        n = theory.coverage_of_pool(pool, holders, 0.05)
        assert stats.hypergeom(pool, holders, n).pmf(0) <= 0.05 * (1 + 1e-9)
        assert n == 1 or stats.hypergeom(pool, holders, n - 1).pmf(0) > 0.05
    for call in (
        lambda: theory.coverage_instances(0.0), lambda: theory.coverage_instances(0.5, 1.0),
        lambda: theory.coverage_all([0.9, 0.9]), lambda: theory.coverage_of_pool(5, 0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"must lie|sum to"):
            call()


def test_the_cheapest_skills_are_found_though_easiest_first_is_not_cheapest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        k = int(rng.integers(1, 9))
        p, w = rng.uniform(0.01, 0.99, k), rng.dirichlet(np.ones(k))
        target = float(w @ p + rng.uniform(0, 1) * (1 - w @ p))
        sets = [u for r in range(k + 1) for u in itertools.combinations(range(k), r)]
        cost = min(
            sum(1 / p[list(u)]) if u else 0.0
            for u in sets
            if w @ p + sum(w[i] * (1 - p[i]) for i in u) >= target - 1e-12
        )
        floor = theory.elicitation_floor(p, target, weights=w)
        assert floor.exact
        assert floor.rollouts == pytest.approx(cost)
    easy_first = theory.elicitation_floor([0.98, 0.5], 0.9)
    assert easy_first.skills == (1,)


@pytest.mark.parametrize(("p", "k", "target"), [(0.1, 10, 0.55), (0.5, 4, 0.8), (1e-3, 3, 0.6)])
def test_no_run_is_quicker_than_the_single_run_floor_more_often_than_delta(p: float, k: int, target: float) -> None:
    needed = len(theory.elicitation_floor([p] * k, target).skills)
    for delta in (0.2, 0.01):
        floor = theory.elicitation_floor([p] * k, target, delta=delta).rollouts
        # Equal rates: the waiting time for all is negative binomial, whatever the order.
        assert stats.nbinom(needed, p).cdf(floor - 1 - needed) <= delta
        assert floor > 0.4 * (stats.nbinom(needed, p).ppf(delta) + needed) or floor == needed


def test_transfer_lowers_the_floor_and_impossible_targets_are_refused() -> None:
    p = [0.5, 0.01]
    alone = theory.elicitation_floor(p, 0.9).rollouts
    helped = theory.elicitation_floor(p, 0.9, transferred=[0.5, 0.2]).rollouts
    assert alone == pytest.approx(102)
    assert helped == pytest.approx(7)
    assert theory.elicitation_floor(p, 0.2).rollouts == 0
    for call in (
        lambda: theory.elicitation_floor(p, 0.9, transferred=[0.1, 0.1]),
        lambda: theory.elicitation_floor([0.5, 0.0], 0.9),
        lambda: theory.elicitation_floor(p, 1.2),
        lambda: theory.elicitation_floor(p, 0.9, delta=0.0),
        lambda: theory.elicitation_floor(p, 0.9, weights=[1.0]),
    ):
        with pytest.raises(ValueError, match=r"base rate|cannot be reached|must lie|vectors of one length"):
            call()


def test_skills_of_one_cluster_cost_the_first_success_of_the_easiest() -> None:
    p, labels = [0.5, 0.01, 0.1, 0.2], ["a", "a", "b", "b"]
    floor = theory.elicitation_floor(p, 0.95, clusters=labels)
    assert floor.rollouts == pytest.approx(2 + 5)
    assert floor.skills == (0, 3)
    assert theory.elicitation_floor(p, 0.55, clusters=labels).rollouts == pytest.approx(2)
    alone = theory.elicitation_floor(p, 0.95, clusters=[1, 2, 3, 4])
    assert alone == theory.elicitation_floor(p, 0.95)
    assert theory.elicitation_floor([0.0, 0.5], 0.9, clusters=["a", "a"]).rollouts == pytest.approx(2)
    single = theory.elicitation_floor(p, 0.95, clusters=labels, delta=0.1).rollouts
    assert 2 <= single <= 7
    with pytest.raises(ValueError, match="one label per skill"):
        theory.elicitation_floor(p, 0.9, clusters=["a"])


def test_many_equal_skills_do_not_slow_the_search() -> None:
    floor = theory.elicitation_floor(np.full(400, 0.1), 0.5)
    assert floor.exact
    assert floor.rollouts == pytest.approx(10 * math.ceil(400 * 0.4 / 0.9))


def test_the_combination_names_what_binds() -> None:
    found = theory.lower_bound(p0=0.3, target=0.8, kappa=0.01, strategies=1000)
    assert [b.theorem for b in found.bounds] == ["T1", "T2", "T3"]
    assert found.binding.theorem == "T1"  # T2 asks for 8 updates, which need no rollouts of their own
    assert found.bounds[1].rollouts is None
    rare = theory.lower_bound(target=0.8, rates=[0.5, 1e-4], frequencies=[0.5, 0.5], kappa=0.01)
    assert rare.binding.theorem == "T5"
    assert rare.binding.rollouts == pytest.approx(10_000, rel=0.01)
    for call in (
        lambda: theory.lower_bound(p0=0.8, target=0.3),
        lambda: theory.lower_bound(target=0.3),
        lambda: theory.lower_bound(target=0.9, rates=[0.5], frequencies=[0.5, 0.5]),
        lambda: theory.lower_bound(p0=0.5, target=0.9, prompts=0),
    ):
        with pytest.raises(ValueError, match=r"p0|rates|group"):
            call()
