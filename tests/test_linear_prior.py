"""The regression on features beside the clusters: against brute force, and what the rule makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopr.selection import Dopr, SelectorConfig, make_selector
from dopr.selection.linear_prior import LinearPrior
from dopr.train.state import load_state, save_state
from selection_kit import ids


def mixed_features(n: int = 120, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Features of which most of the spread is about something else, and which prompts succeed: one direction of twelve tells."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 12))
    return features, features[:, 0] + features[:, 1] > 0


def test_it_is_the_discounted_ridge_regression() -> None:
    features, _ = mixed_features()
    prior = LinearPrior(120)
    prior.set_features(features, seed=3)
    assert prior.features.shape == (120, 12)
    assert (prior.features**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-3)
    rng = np.random.default_rng(1)
    rows, deviations = rng.integers(0, 120, 40), rng.normal(size=40) / 4
    for row, deviation in zip(rows.tolist(), deviations.tolist(), strict=True):
        prior.learn(row, deviation)
    x, weight = prior.features[rows].astype(float), 0.98 ** np.arange(39, -1, -1)
    w = np.linalg.solve(x.T @ (weight[:, None] * x) + np.eye(12), x.T @ (weight * deviations))
    every = np.arange(120)
    expected = np.clip(0.5 + prior.features @ w, 1 / 64, 1 - 1 / 64)
    np.testing.assert_allclose(prior.adjust(every, np.full(120, 0.5)), expected, atol=1e-6)


def test_wide_features_are_cut_to_their_main_components() -> None:
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 30)) + 1e-3 * rng.standard_normal((50, 30))
    prior = LinearPrior(50)
    prior.set_features(wide, seed=0)
    assert prior.features.shape == (50, 16)
    spread = np.sort(prior.features.var(axis=0))
    assert spread[-3:].sum() > 0.999 * spread.sum()


def test_without_features_or_groups_the_clusters_rates_stand() -> None:
    rates = np.array([0.0, 0.4, 1.0])
    prior = LinearPrior(3)
    prior.learn(0, 0.5)
    assert prior.adjust(np.arange(3), rates) is rates
    prior.set_features(np.eye(3), seed=0)
    np.testing.assert_array_equal(prior.adjust(np.arange(3), rates), rates)
    constant = LinearPrior(3)
    constant.set_features(np.ones((3, 5)), seed=0)  # nothing varies
    constant.learn(0, 0.5)
    np.testing.assert_array_equal(constant.adjust(np.arange(3), rates), rates)


def test_no_prompt_is_given_up_for_its_features() -> None:
    features, right = mixed_features()
    prior = LinearPrior(120)
    prior.set_features(features, seed=0)
    for row in range(100):
        prior.learn(row, 1.0 if right[row] else -1.0)
    rates = prior.adjust(np.arange(120), np.full(120, 0.5))
    assert rates.min() == 1 / 64
    assert rates.max() == 1 - 1 / 64


def told(linear: bool, groups: int = 40, **config: Any) -> tuple[Dopr, np.ndarray[Any, Any]]:
    """A selector in whose two clusters half of the prompts fail, as one direction of the features tells."""
    features, right = mixed_features()
    selector = make_selector("dopr", ids(120), SelectorConfig(chunk=2, **config), {"clusters": 2, "linear": linear})
    assert isinstance(selector, Dopr)
    selector.set_features(features)
    for row in range(groups):
        selector.round += 1
        selector.tell(f"p{row}", [float(right[row])] * 2)
    return selector, right


def test_prompts_never_seen_are_told_apart_within_a_cluster() -> None:
    rows = np.arange(40, 120)

    def order(linear: bool) -> float:
        """The chance that a prompt that succeeds is expected to do so more often than one that does not."""
        selector, right = told(linear)
        p, y = selector.predict(rows), right[rows]
        assert len(set(selector.labels.tolist())) == 2
        above = p[y][:, None] - p[~y][None]
        return float((above > 0).mean() + (above == 0).mean() / 2)

    assert order(linear=True) > 0.9
    assert order(linear=False) < 0.8


def test_a_prompt_that_looks_like_failing_ones_is_searched_at_its_first_failure() -> None:
    selector, right = told(linear=True, groups=100)
    fails, succeeds = (np.flatnonzero(kind[100:]) + 100 for kind in (~right, right))
    searched = [np.mean([selector.review(f"p{i}", [0.0]).search for i in some]) for some in (fails, succeeds)]
    assert searched[0] > searched[1] + 0.5


def test_what_was_learned_goes_through_a_checkpoint_into_a_larger_pool(tmp_path: Path) -> None:
    selector, _ = told(linear=True)
    save_state(tmp_path / "state.npz", selector.state_dict())
    order = np.random.default_rng(5).permutation(120)
    twin = make_selector("dopr", ["new", *(f"p{i}" for i in order)], SelectorConfig(chunk=2), {"clusters": 2})
    assert isinstance(twin, Dopr)
    twin.load_state_dict(load_state(tmp_path / "state.npz"))
    np.testing.assert_allclose(twin.predict(np.arange(1, 121)), selector.predict(order), rtol=1e-6)
    for one, row in ((selector, 7), (twin, 1 + int(np.flatnonzero(order == 7)[0]))):
        one.round += 1
        one.tell("p7", [1.0, 0.0])
        assert one.ids[row] == "p7"
    np.testing.assert_allclose(twin.predict(np.arange(1, 121)), selector.predict(order), rtol=1e-6)
