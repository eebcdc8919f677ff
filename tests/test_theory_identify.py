"""T3 against slower, independent computations: mpmath, and every adaptive rule by enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath as mp
import pytest
from scipy import stats

from dopr import theory

mp.mp.dps = 40


@pytest.mark.parametrize("strategies", [2, 6, 1e3, 1e9])
@pytest.mark.parametrize(("plus", "minus"), [(1.0, 0.0), (0.9, 0.1), (0.3, 0.3 + 1e-3)])
def test_identification_is_its_largest_part(strategies: float, plus: float, minus: float) -> None:
    m, delta, p, q = mp.mpf(strategies), mp.mpf(0.05), mp.mpf(plus), mp.mpf(minus)

    def kl(a: mp.mpf, b: mp.mpf) -> mp.mpf:
        return sum(x * mp.log(x / y) if y else mp.inf for x, y in ((a, b), (1 - a, 1 - b)) if x > 0)

    parts = [
        kl(1 - delta, 1 / m) / mp.mpf(float(theory.capacity(plus, minus))),
        (m * (1 - delta) - 1) / abs(p - q),
        m * kl(1 / m, 1 - delta) / kl(q, p),
    ]
    assert float(theory.identification_rollouts(strategies, plus, minus, 0.05)) == pytest.approx(
        float(mp.ceil(max(parts))), rel=1e-9
    )


def test_identification_refuses_what_cannot_be_and_allows_a_guess() -> None:
    assert theory.identification_rollouts(2, 1, 0, 0.6) == 0
    for bad in ((1, 1, 0, 0.1), (6, 1, 1, 0.1), (6, 1.2, 0, 0.1), (6, 1, 0, 0), (6, 1, 0, 1)):
        with pytest.raises(ValueError, match=r"must lie|tell nothing"):
            theory.identification_rollouts(*bad)


def test_propensity_rollouts_is_the_smallest_that_suffices() -> None:
    for w, gap in (([0.6, 0.3, 0.1], 1.0), ([1e-9] * 50, 1.0), ([0.2, 0.01, 0.3, 0.1], 0.4)):
        found = theory.propensity_rollouts(w, gap, 0.0, 0.05)

        def told(t: float, w: list[float] = w, gap: float = gap) -> mp.mpf:
            return mp.mpf(1) / len(w) + sum(1 - (1 - mp.mpf(x) * mp.mpf(gap)) ** t for x in w) / len(w)

        assert told(found) >= mp.mpf("0.95") * (1 - mp.mpf(10) ** -11)
        assert told(found * (1 - 1e-9) - 1) < mp.mpf("0.95")
    assert theory.propensity_rollouts([1.0, 0.0, 0.0], 1, 0, 0.05) == math.inf
    with pytest.raises(ValueError, match="at least 2"):
        theory.propensity_rollouts([0.5], 1, 0)


def quickest(hazards: tuple[float, ...], needed: int, rollouts: int) -> float:
    """Largest probability with which any adaptive rule shows ``needed`` of the skills in so many rollouts, by enumeration."""
    value = {frozenset(s): float(len(hazards) - len(s) >= needed)
             for r in range(len(hazards) + 1) for s in itertools.combinations(range(len(hazards)), r)}  # fmt: skip
    for _ in range(rollouts):
        value = {
            hidden: max(
                (hazards[s] * value[hidden - {s}] + (1 - hazards[s]) * value[hidden] for s in hidden),
                default=value[hidden],
            )
            for hidden in value
        }
    return value[frozenset(range(len(hazards)))]


@pytest.mark.parametrize("hazards", [(0.3,), (0.5, 0.1, 0.02), (0.1, 0.1, 0.1, 0.1), (1.0, 0.25, 0.2), (0.9, 0.0, 0.3)])
def test_drawn_rollouts_is_what_the_best_adaptive_rule_needs(hazards: tuple[float, ...]) -> None:
    for delta in (0.05, 0.5):
        for needed in range(1, 1 + sum(h > 0 for h in hazards)):
            found = int(theory.drawn_rollouts(hazards, needed, delta))
            assert quickest(hazards, needed, found) >= (1 - delta) * (1 - 1e-9)
            assert quickest(hazards, needed, found - 1) < 1 - delta


def test_drawn_rollouts_keeps_its_digits_and_stays_a_bound_for_very_many_skills() -> None:
    for h, n in ((0.1, 16), (1e-9, 3), (1e-3, 300)):  # equal hazards: a negative binomial wait
        found = theory.drawn_rollouts([h] * n, n, 0.05)
        with mp.workdps(60):  # fewer than n successes in so many rollouts, term by term
            p = mp.mpf(h)

            def few(t: float, n: int = n, p: mp.mpf = p) -> mp.mpf:
                term = total = (1 - p) ** t
                for k in range(1, n):
                    term *= (t - k + 1) / mp.mpf(k) * p / (1 - p)
                    total += term
                return total

            assert few(found * (1 + 1e-12)) <= mp.mpf("0.05") * (1 + mp.mpf(10) ** -9)
            assert few(found * (1 - 1e-9) - 1) > mp.mpf("0.05")
    many = theory.drawn_rollouts([0.2] * 500, 500, 0.05)
    assert theory.drawn_rollouts([0.2] * 400, 400, 0.05) + 100 == many < stats.nbinom(500, 0.2).ppf(0.95) + 500
    assert theory.drawn_rollouts([0.5, 0.0], 2, 0.05) == math.inf
    for bad in (([0.5], 2), ([0.5], 0), ([1.5], 1), ([0.5], 1, 0.0)):
        with pytest.raises(ValueError, match=r"must lie"):
            theory.drawn_rollouts(*bad)


def test_trial_rollouts_count_and_refuse() -> None:
    assert theory.trial_rollouts(256, 1.0, 0.0, 0.05) == 244  # 243.2: one more than naming, which may guess
    assert theory.trial_rollouts([10, 20], 0.2, 0.7, 0.5).tolist() == [10, 20]
    for bad in ((1, 1.0, 0.0), (5, 0.3, 0.3), (5, 1.2, 0.0), (5, 1.0, 0.0, 1.0)):
        with pytest.raises(ValueError, match=r"must lie|tell nothing"):
            theory.trial_rollouts(*bad)


def identification(**known: Any) -> theory.Bound:
    return next(b for b in theory.lower_bound(**known).bounds if b.theorem == "T3")


def test_identification_of_several_skills_is_what_any_run_needs() -> None:
    """Sixteen skills at 0.1: summing their quantiles gave 464 rollouts, before which every simulated run was done."""
    found = theory.lower_bound(target=0.99, rates=[0.1] * 16, strategies=50)
    t3 = next(b for b in found.bounds if b.theorem == "T3")
    assert t3.value == 48  # by trials of chosen strategies, fewer than by draws
    assert "after 227 rollouts" in t3.sentence
    assert found.binding.theorem == "T5"
    assert identification(target=0.99, rates=[0.1] * 16, strategies=1000).value == 227
    assert stats.nbinom(16, 0.1).ppf(0.95) + 16 == 227
    assert identification(target=0.99, rates=[0.5] * 16, strategies=2, delta=0.5).value == 16  # a rollout each at least


def test_identification_does_not_jump_where_the_base_policy_passes_chance() -> None:
    below, above = (identification(target=0.8, p0=p0, strategies=6).value for p0 in (0.16, 0.17))
    assert below == above == 6
    assert identification(target=0.8, p0=0.7, strategies=6).value == 3  # draws are quicker there
