"""A tabular policy in NumPy: thousands of selection runs an hour, for screening rules before any transformer trains.

The policy is a softmax over strategies whose logits are linear in features that skills share, so updates on one skill
disturb the others, as in a network. The verifier is exact: a rollout succeeds iff it draws the skill's right strategy.
This is a model of RLVR, not RLVR; what wins here is only a candidate for the real trainer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats
from dopr.selection.memory import Success
from dopr.selection.rollouts import Review
from dopr.selection.selector import Selector


@dataclass(frozen=True, kw_only=True)
class TabularWorld:
    """A pool of prompts, each of one skill, each skill with one right strategy.

    Attributes:
        propensities: Base probability of the right strategy per skill, shape (skills,).
        strategies: Number of strategies M.
        prompts: Pool size N; skills are dealt evenly.
        dimensions: Width of the shared random features; fewer = more interference between skills.
        seed: Seed of features, right strategies and base logits.
    """

    propensities: tuple[float, ...] = tuple(np.geomspace(0.6, 0.01, 16).tolist())
    strategies: int = 6
    prompts: int = 2000
    dimensions: int = 32
    seed: int = 0
    skill: NDArray[np.int64] = field(init=False, repr=False)
    right: NDArray[np.int64] = field(init=False, repr=False)
    features: Floats = field(init=False, repr=False)
    base_logits: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 0x7AB])
        skills, m = len(self.propensities), self.strategies
        p = np.array(self.propensities)[:, None]
        right = rng.integers(m, size=skills)
        base = rng.dirichlet(np.ones(m - 1), size=skills) * (1 - p)
        probabilities = np.empty((skills, m))
        for s in range(skills):
            probabilities[s] = np.insert(base[s], right[s], p[s, 0])
        features = rng.standard_normal((skills, self.dimensions)) / np.sqrt(self.dimensions)
        for name, value in (
            ("skill", np.arange(self.prompts) % skills),
            ("right", right),
            ("features", features),
            ("base_logits", np.log(np.maximum(probabilities, 1e-6))),
        ):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class TabularRun:
    """What one run reached.

    Attributes:
        rollouts_to_target: Rollouts spent when mean success first reached the target; ``None`` if it never did.
        rollouts: Rollouts spent in all.
        success: Final mean success over skills.
        worst: Final success on the worst skill.
        informative: Share of groups with mixed rewards.
    """

    rollouts_to_target: int | None
    rollouts: int
    success: float
    worst: float
    informative: float


def run_tabular(
    world: TabularWorld, selector: Selector, *, learning_rate: float, target: float, budget: int, seed: int
) -> TabularRun:
    """Train the tabular policy with ``selector`` until ``target`` mean success or ``budget`` rollouts.

    GRPO advantages (reward minus group mean, over the group's standard deviation) and Adam; replayed successes enter as
    rows with advantage 1, and updates from these alone follow each round, as in the real trainer.
    """
    rng = np.random.default_rng([seed, 0x51])
    weights = np.zeros((world.dimensions, world.strategies))
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    spent = groups = mixed = step = 0
    reached = None
    while spent < budget:
        rows: list[tuple[int, int, float]] = []  # skill, strategy, advantage
        for pick in selector.ask():
            skill = int(world.skill[pick.row])
            probability = _softmax(world.base_logits[skill] + world.features[skill] @ weights)
            drawn: list[int] = []
            more = Review("more", pick.rollouts)
            while more.rollouts:
                left = probability.copy()
                if more.search:  # all that was drawn has failed
                    left[drawn] *= 1e-30
                drawn += rng.choice(world.strategies, more.rollouts, p=left / left.sum()).tolist()
                rewards = [float(a == world.right[skill]) for a in drawn]
                more = selector.review(pick.prompt_id, rewards)
            group = selector.tell(pick.prompt_id, rewards)
            spent, groups, mixed = spent + len(drawn), groups + 1, mixed + bool(group and group.mixed)
            r = np.array(rewards)
            advantages = (r - r.mean()) / ((r.std(ddof=1) if len(r) > 1 else 0.0) + 1e-4)
            rows += [(skill, a, adv) for a, adv in zip(drawn, advantages, strict=True) if adv]
            entropy = float(-(probability * np.log(probability + 1e-12)).sum())
            selector.tell_entropy(pick.prompt_id, entropy)
            for a, reward in zip(drawn, rewards, strict=True):
                if reward:
                    selector.remember(Success(pick.prompt_id, np.array([skill]), np.array([a])))
        for update in range(1 + selector.replay_updates):
            replayed = selector.replay()
            if update and not replayed:
                break
            rows = rows * (update == 0) + [(int(s.prompt[0]), int(s.completion[0]), 1.0) for s in replayed]
            step += 1
            gradient = _gradient(world, weights, rows)
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            weights += learning_rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        success = _success(world, weights)
        if reached is None and success.mean() >= target:
            reached = spent
            break
    success = _success(world, weights)
    return TabularRun(
        rollouts_to_target=reached,
        rollouts=spent,
        success=float(success.mean()),
        worst=float(success.min()),
        informative=mixed / max(groups, 1),
    )


def _softmax(logits: Floats) -> Floats:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _success(world: TabularWorld, weights: Floats) -> Floats:
    return _softmax(world.base_logits + world.features @ weights)[np.arange(len(world.right)), world.right]


def _gradient(world: TabularWorld, weights: Floats, rows: list[tuple[int, int, float]]) -> Floats:
    """Ascent direction, shape (dimensions, strategies): the mean over rows of advantage times gradient of log-probability."""
    gradient = np.zeros_like(weights)
    if rows:
        skills, actions, advantages = (np.array(x) for x in zip(*rows, strict=True))
        delta = -_softmax(world.base_logits[skills] + world.features[skills] @ weights)
        delta[np.arange(len(rows)), actions] += 1
        gradient += world.features[skills].T @ (delta * advantages[:, None])
    return gradient / max(1, len(rows))
