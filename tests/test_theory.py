"""The bounds' numbers: against mpmath at the extremes, at the edges of their domains, and by property."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from dopr import theory

mp.mp.dps = 60


def exact_kl(a: float, b: float) -> mp.mpf:
    a, b = mp.mpf(a), mp.mpf(b)
    return sum(x * mp.log(x / y) for x, y in ((a, b), (1 - a, 1 - b)) if x > 0)


def close(value: object, exact: mp.mpf, digits: float = 12) -> bool:
    return abs(mp.mpf(float(np.asarray(value))) - exact) <= mp.mpf(10) ** -digits * abs(exact)


@pytest.mark.parametrize("b", [1e-9, 1e-4, 0.3, 0.5, 0.9, 1 - 1e-9])
@pytest.mark.parametrize("a", [0.0, 2e-9, 1.1e-4, 0.3 + 1e-7, 0.5, 0.999, 1.0])
def test_binary_divergence_keeps_its_digits(a: float, b: float) -> None:
    # The difference a - b is exact only to the rounding of a and b; mpmath gets the same rounded numbers.
    assert close(theory.kl(a, b), exact_kl(a, b), 11)


@pytest.mark.parametrize("p", [1e-9, 1e-3, 0.3, 0.5, 0.97, 1 - 1e-6])
@pytest.mark.parametrize("kappa", [1e-12, 1e-6, 0.01, 0.5, 5.0])
def test_one_update_reaches_exactly_its_divergence(p: float, kappa: float) -> None:
    from dopr.theory.divergence import kl_step, reachable_step

    d = float(reachable_step(p, kappa))
    if kappa >= -np.log(p):
        assert d == 1 - p
        return
    x = mp.findroot(lambda d: exact_step(p, d) - kappa, (mp.mpf(d) * 0.999, mp.mpf(d) * 1.001), tol=1e-70)
    assert close(d, x, 10)
    assert close(kl_step(p, d), mp.mpf(kappa), 9)
    assert float(theory.reachable(p, kappa)) == p + d


def exact_step(p: float, d: mp.mpf) -> mp.mpf:
    p = mp.mpf(p)
    return (p + d) * mp.log((p + d) / p) + (1 - p - d) * mp.log((1 - p - d) / (1 - p))


@pytest.mark.parametrize(("plus", "minus"), [(1, 0), (0.9, 0.1), (0.5, 1e-9), (1e-9, 2e-9), (0.3, 0.3 + 1e-7), (0, 1)])
def test_capacity_is_the_maximum_over_inputs(plus: float, minus: float) -> None:
    def information(w: mp.mpf) -> mp.mpf:
        def h(x: mp.mpf) -> mp.mpf:
            return -sum(t * mp.log(t) for t in (x, 1 - x) if t > 0)

        return h(w * p + (1 - w) * q) - w * h(p) - (1 - w) * h(q)

    p, q = mp.mpf(plus), mp.mpf(minus)
    low, high = mp.mpf(0), mp.mpf(1)
    for _ in range(200):
        a, b = low + (high - low) * mp.mpf("0.382"), low + (high - low) * mp.mpf("0.618")
        low, high = (a, high) if information(a) < information(b) else (low, b)
    assert close(theory.capacity(plus, minus), information((low + high) / 2), 7 if abs(plus - minus) < 1e-6 else 11)


@pytest.mark.parametrize("p", [1e-9, 1e-4, 0.2, 0.5, 0.999, 1 - 1e-9])
@pytest.mark.parametrize("group", [2, 8, 64])
def test_mixed_probability_and_groups_to_a_signal_keep_their_digits(p: float, group: int) -> None:
    exact = 1 - mp.mpf(p) ** group - (1 - mp.mpf(p)) ** group
    assert close(theory.mixed_probability(p, group), exact)
    groups = mp.log(mp.mpf("0.05")) / mp.log(1 - exact)
    assert abs(float(theory.first_signal_groups(p, group, 0.05)) - float(mp.ceil(groups))) <= 1e-9 * float(groups)


def test_the_ceiling_of_selection_is_the_best_over_the_mean() -> None:
    rates = np.array([0.5, 0.0, 1.0, np.nan])
    ceiling = theory.selection_ceiling(rates, 8)
    best = 1 - 2 * 0.5**8
    assert ceiling.best_share == pytest.approx(best)
    assert ceiling.random_share == pytest.approx(best / 3)
    assert ceiling.gain == pytest.approx(3)
    two = theory.selection_ceiling(np.stack([rates, np.full(4, np.nan), [0.0, 0.0, 1.0, 1.0]]), 8)
    assert two.times == 2
    assert two.gain == pytest.approx(3)
    assert theory.selection_ceiling([0.0, 1.0], 8).gain == 1.0
    for bad in ([np.nan], [], np.zeros((2, 2, 2)), [1.5]):
        with pytest.raises(ValueError, match="rate"):
            theory.selection_ceiling(bad, 8)
    with pytest.raises(ValueError, match="at least 2"):
        theory.selection_ceiling(rates, 1)
