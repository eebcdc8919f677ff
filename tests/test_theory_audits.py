"""Nothing beats the bounds: the audit's simulations at a size for every test run, and properties under random policies."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopr import theory

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "theory_audit.py"


def load_audit() -> Any:
    spec = spec_from_file_location("theory_audit", SCRIPT)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules["theory_audit"] = module
    spec.loader.exec_module(module)
    return module


audit = load_audit()


@pytest.mark.parametrize(("p", "group"), [(0.5, 2), (0.1, 8), (0.01, 8), (0.97, 4)])
def test_the_wait_for_a_mixed_group_is_the_exact_formula(p: float, group: int) -> None:
    rng = np.random.default_rng([1, group])
    _, low, high = audit.quantile_interval(audit.groups_to_first_signal(p, group, 8000, rng), 0.95)
    assert low <= float(theory.first_signal_groups(p, group, 0.05)) <= high


def test_no_grouping_of_rollouts_finds_a_signal_sooner_than_the_rollouts_bound() -> None:
    """Groups of every size, one after the other, and groups that go on until they are mixed."""
    rng = np.random.default_rng(2)
    for p in (0.02, 0.3):
        bound = float(theory.first_signal_rollouts(p, 0.05))
        for group in (2, 3, 8, 10**9):
            right = rng.random((6000, int(bound) - 1)) < p
            mixed = np.zeros(6000, bool)
            for start in range(0, right.shape[1], min(group, right.shape[1])):
                part = right[:, start : start + group]
                mixed |= part.any(axis=1) & ~part.all(axis=1)
            assert mixed.mean() < 0.95 + 3 * np.sqrt(0.05 * 0.95 / 6000)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kappa=st.floats(1e-4, 1.0),
    how=st.sampled_from(["tilt", "gradient", "one prompt", "noise", "mixture"]),
)
def test_no_sequence_of_categorical_policies_travels_faster(seed: int, kappa: float, how: str) -> None:
    rng = np.random.default_rng(seed)
    logits, right = audit.random_policy(int(rng.integers(1, 7)), int(rng.integers(2, 9)), rng)
    means = audit.travel(logits, right, kappa, 4, how, rng)
    assert (means <= audit.ceiling(means[0], kappa, 4) + 1e-9).all()
    best = float(means.max())
    if best > means[0] + 1e-6:
        steps = int(means.argmax())
        assert steps >= theory.travel_updates(means[0], min(1.0, best * (1 - 1e-9)), kappa)
        rates = (audit.softmax(logits) * right).sum(axis=1)
        if best < 1 - 1e-6:
            assert steps >= theory.profile_updates(rates, best - 1e-7, kappa)


@pytest.mark.parametrize("kappa", [1e-3, 0.05, 0.5])
def test_the_tilt_of_a_single_prompt_meets_the_bound(kappa: float) -> None:
    rng = np.random.default_rng(0)
    logits, right = np.log([[0.1, 0.15, 0.5, 0.25]]), np.array([[1.0, 1.0, 0.0, 0.0]])
    updates = 8
    means = audit.travel(logits, right, kappa, updates, "tilt", rng)
    np.testing.assert_allclose(means, audit.ceiling(0.25, kappa, updates), rtol=1e-6)
    target = float(means[5]) * (1 - 1e-6)
    assert theory.travel_updates(0.25, target, kappa) == int(np.argmax(means >= target))


@pytest.mark.parametrize(("plus", "minus"), [(1.0, 0.0), (0.9, 0.1), (0.6, 0.3)])
def test_a_bayes_optimal_identifier_needs_at_least_the_bound(plus: float, minus: float) -> None:
    rng = np.random.default_rng(4)
    for strategies in (2, 6, 24):
        used = audit.rollouts_to_identify(strategies, plus, minus, 0.05, 2000, rng)
        # The identifier's own error is estimated from 2,000 trials: allow it three standard errors.
        allowed = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
        assert used >= theory.identification_rollouts(strategies, plus, minus, allowed)


def test_without_noise_the_bound_on_trials_is_what_bayes_needs() -> None:
    used = audit.rollouts_to_identify(64, 1.0, 0.0, 0.05, 4000, np.random.default_rng(5))
    assert abs(used - float(theory.identification_rollouts(64, 1.0, 0.0, 0.05))) <= 1


def test_drawn_strategies_show_the_right_one_no_sooner_than_their_propensity_allows() -> None:
    rng = np.random.default_rng(6)
    w = np.array([0.5, 0.3, 0.15, 0.05])
    bound = int(theory.propensity_rollouts(w, 1.0, 0.0, 0.1))
    right = rng.integers(4, size=20_000)
    drawn = rng.choice(4, size=(20_000, bound - 1), p=w)
    seen = (drawn == right[:, None]).any(axis=1)
    # Without a success the best guess is the strategy that was drawn least; it is right at most when the posterior says so.
    tried = (drawn[:, :, None] == np.arange(4)).any(axis=1)
    weight = np.where(tried, 0.0, 1.0)
    guess = weight.max(axis=1) / np.maximum(weight.sum(axis=1), 1)
    assert (seen + ~seen * guess).mean() < 0.9 + 3 * np.sqrt(0.09 / 20_000)


def test_no_order_of_skills_unlocks_them_in_fewer_rollouts() -> None:
    rng = np.random.default_rng(7)
    rates = np.geomspace(0.6, 0.02, 8)
    for target in (0.5, 0.8):
        floor = theory.elicitation_floor(rates, target).rollouts
        single = theory.elicitation_floor(rates, target, delta=0.05).rollouts
        for how in ("cheapest", "adaptive", "random"):
            spent = audit.rollouts_to_unlock(rates, target, how, 1500, rng)
            error = spent.std() / np.sqrt(len(spent))
            assert spent.mean() > floor - 4 * error
            assert (spent < single).mean() <= 0.05
            if how == "cheapest":
                assert abs(spent.mean() - floor) < 4 * error


@settings(max_examples=300, deadline=None)
@given(start=st.floats(1e-6, 1.55), step=st.floats(1e-4, 1.5), clip=st.floats(0.0, 0.5))
def test_among_steps_that_end_short_of_the_clip_the_cheapest_ends_there(start: float, step: float, clip: float) -> None:
    """The inequality behind `profile_updates`, and the convexity its proof needs."""
    end = start + step
    if end <= np.pi / 2 - clip:
        least = theory.kl(np.cos(clip) ** 2, np.cos(clip + step) ** 2)
        assert theory.kl(np.sin(end) ** 2, np.sin(start) ** 2) >= least * (1 - 1e-9) - 1e-15
    if clip + 2 * step < np.pi / 2:
        once, twice = (float(theory.kl(np.cos(clip) ** 2, np.cos(clip + k * step) ** 2)) for k in (1, 2))
        assert once <= twice / 2 * (1 + 1e-9)


def test_uneven_updates_of_the_same_mean_divergence_obey_the_profile_bound() -> None:
    rng = np.random.default_rng(8)
    for _ in range(5):
        p0, updates, mean = float(rng.uniform(0.05, 0.6)), 12, float(rng.uniform(1e-3, 0.02))
        p = p0
        for kappa in rng.dirichlet(np.full(updates, 0.5)) * updates * mean:
            p = float(theory.reachable(p, kappa)) if p < 1 and kappa > 1e-15 else p
        if p < 1 - 1e-9:
            assert theory.profile_updates([p0], p, mean) <= updates


def test_no_rule_shows_skills_by_draws_in_fewer_rollouts() -> None:
    rng = np.random.default_rng(9)
    hazards = np.array([0.4, 0.2, 0.1, 0.05])
    for needed in (1, 3, 4):
        bound = theory.drawn_rollouts(hazards, needed, 0.05)
        for how in ("easiest", "random", "turns"):
            spent = audit.rollouts_to_show(hazards, needed, how, 4000, rng)
            assert (spent < bound).mean() < 0.95 + 3 * np.sqrt(0.05 * 0.95 / 4000)
            if how == "easiest":
                assert (spent <= bound).mean() > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize(("plus", "minus"), [(1.0, 0.0), (0.9, 0.1), (0.2, 0.7)])
def test_trials_of_chosen_strategies_show_the_right_one_no_sooner(plus: float, minus: float) -> None:
    """Trials in turn; a trial shows the right strategy where a wrong one, on the same luck, would have come out otherwise."""
    rng = np.random.default_rng(10)
    strategies = 12
    bound = int(theory.trial_rollouts(strategies, plus, minus, 0.2))
    right = rng.integers(strategies, size=(20_000, 1))
    luck = rng.random((20_000, bound - 1))
    differs = (luck < plus) != (luck < minus)
    shown = ((np.arange(bound - 1) % strategies == right) & differs).any(axis=1)
    assert shown.mean() < 0.8 + 3 * np.sqrt(0.16 / 20_000)
