"""Screening of the rule's pieces in the tabular world: `python benchmarks/tabular.py` (a minute or two on two cores).

Median rollouts to 0.8 mean success over twelve seeds, with the range; runs that do not get there in 6,000 count as more.
"""

from __future__ import annotations

from multiprocessing import Pool
from typing import Any

import numpy as np

from dopr.selection import SelectorConfig, make_selector
from dopr.simulate import TabularWorld, run_tabular

SEEDS, RATE, TARGET, BUDGET = range(12), 0.1, 0.8, 6000
EXTRAS: dict[str, Any] = {"chunk": 2, "replay": 8, "replay_updates": 1}
#: name: strategy, options of the rule, settings, noise on the one-hot skill features (None = no features)
ARMS: dict[str, tuple[str, dict[str, Any], dict[str, Any], float | None]] = {
    "random-one, sequential and replay": ("random-one", {}, EXTRAS, None),
    "rule, sampled in proportion to the score": ("dopr", {"sampling": True}, EXTRAS, 0.0),
    "rule, maximum of the score (default)": ("dopr", {}, EXTRAS, 0.0),
    "the same, without Thompson draws": ("dopr", {"thompson": False}, EXTRAS, 0.0),
    "the same, without entropy modulation": ("dopr", {"entropy_power": 0.0}, EXTRAS, 0.0),
    "the same, volatility both": ("dopr", {"volatility": "both"}, EXTRAS, 0.0),
    "the same, without visit damping": ("dopr", {"visit_power": 0.0}, EXTRAS, 0.0),
    "the same, without headroom": ("dopr", {"headroom": False}, EXTRAS, 0.0),
    "the same, without replay": ("dopr", {}, {**EXTRAS, "replay": 0}, 0.0),
    "the same, without replay updates": ("dopr", {}, {**EXTRAS, "replay_updates": 0}, 0.0),
    "the same, four replay updates": ("dopr", {}, {**EXTRAS, "replay_updates": 4}, 0.0),
    "the same, without search": ("dopr", {"search": False}, EXTRAS, 0.0),
    "the same, without stages": ("dopr", {"progress": False}, EXTRAS, 0.0),
    "the same, without sequential rollouts": ("dopr", {}, {**EXTRAS, "chunk": 8}, 0.0),
    "the same, 64 noisy clusters": ("dopr", {}, EXTRAS, 0.15),
    "the same, without features": ("dopr", {}, EXTRAS, None),
}


def one(job: tuple[str, int]) -> float:
    arm, seed = job
    strategy, options, settings, noise = ARMS[arm]
    world = TabularWorld(seed=seed % 4)
    selector = make_selector(strategy, range(world.prompts), SelectorConfig(seed=seed, **settings), options)
    if noise is not None:
        skills = np.eye(len(world.propensities))[world.skill]
        selector.set_features(skills + noise * np.random.default_rng(0).normal(size=skills.shape))
    run = run_tabular(world, selector, learning_rate=RATE, target=TARGET, budget=BUDGET, seed=seed)
    return float(run.rollouts_to_target or np.inf)


def main() -> None:
    print("| arm | rollouts |\n|---|---|")
    with Pool(2) as workers:
        for arm in ARMS:
            values = workers.map(one, [(arm, seed) for seed in SEEDS])
            high = f"{max(values):,.0f}" if np.isfinite(max(values)) else f"over {BUDGET:,}"
            print(f"| {arm} | {np.median(values):,.0f} [{min(values):,.0f}, {high}] |", flush=True)


if __name__ == "__main__":
    main()
