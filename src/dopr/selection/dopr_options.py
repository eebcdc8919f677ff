"""The switches of the dopr rule, each with the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dopr.errors import ConfigError

Volatility = Literal["expected", "within", "temporal", "both"]


@dataclass(frozen=True, kw_only=True)
class DoprOptions:
    """Switches of the dopr rule; each states its default's reason.

    Attributes:
        volatility: What V is. ``expected``: the chance of a mixed group under the posterior, with what searches find
            (default: it alone also speaks about prompts never seen). ``within``: spread of rewards inside recent groups. ``temporal``: spread
            of the success rate over visits. ``both``: mean of the last two.
        headroom: Multiply by 1 - p (default on: in early experiments without visit damping, chasing variance alone lost to
            random choice; with damping the tabular world shows no difference either way).
        thompson: Draw p from its posterior instead of taking the mean (default on: uncertain clusters get their turn).
        sampling: Pick in proportion to the score instead of the maximum (default off: with posterior draws and visit
            damping the maximum already spreads over skills, and needed a quarter fewer rollouts in the tabular world).
        random: Ignore the score and pick at random (default off): the control that has everything of dopr but the choice.
        visit_power: Count-based exploration as damping (1 + n)^-power. Default 1: without it the rule needed twice the
            rollouts in the tabular world; 0 switches it off.
        ucb: Weight of the additive count bonus. Default 0: damping explores already, and keeps the gain's zeros.
        entropy_power: Entropy modulation of exploration, (h / mean h)^power. Default 0.5: mild, because token entropy
            also reflects wording; its gain in the tabular world is within the noise. 0 switches it off.
        forgetting: Discount of counts per round since seen. Default 0.99: the policy moves under the estimates.
        step: Weight of the newest group in running averages. Default 0.3, about the last five visits.
        clusters: Clusters that share a posterior when features are given; ``None`` = one per eight prompts, at most
            64; 1 = pooled only.
        linear: Beside the clusters, learn from the features by regression what tells prompts that fail from others. Default on: on a
            language model it told answers below zero from other differences after ten groups, where clusters mixed them
            (docs/log.md, 2026-11-27).
        prior_strength: Pseudo-rollouts of the pooled prior on a cluster. Default 2: one group outweighs it.
        progress: Judge a cluster that has shown a success by how such clusters did when seen again, and forget what it did
            before. Default on.
        fresh: As long as candidates are left that were never rolled out, leave those that have had a success, which replay teaches
            without rollouts. Default on: what prompts never seen do tells how well the others are known by heart. Without it a
            language model was asked the same few prompts again and again (docs/log.md, 2026-11-26).
        balanced_replay: Replay clusters by their headroom instead of every remembered success alike. Default on: a quarter
            fewer rollouts in the tabular world.
        contrast: Replay a success from the first token that no failure of its group shares, instead of all of it. Default on: what
            failures share with it is not what made it right; without it guesses that a search got right were learned as a habit.
        search: Where a success is not to be expected, a group that has failed so far goes on one rollout at a time, and repeats
            none of its failed answers (completions, unless a named verifier judges by the answer alone): on clusters that have
            shown no success, and on prompts of which, by their own and their cluster's record and these failures, fewer than
            one rollout in ``wrong_cap`` succeeds. Default on: without it 52 % mean
            accuracy over 300 rollouts of latent-strategy where it is 79 % with it (docs/results/suite.md).
        search_depth: A search ends after this many times ``wrong_cap`` rollouts, or earlier, where draws that deep have not paid
            (``selection/search_record.py``). Default 3: the chance of a success grows with every failure that is left out, so going on
            can be worth more than the same search on another prompt. At 1 a language model found no answer below zero in three runs of
            five (docs/log.md, 2026-11-26).
        base_search: After ``wrong_cap`` failures a search goes on with draws from the policy as it was before training, after as many more
            again with the policy as it is, and so on; after a search in vain the next one in that cluster begins with the other. Default on:
            training makes answers rarer that were found easily before. Costs a copy of the trained parameters in main memory (of adapters
            alone where there are any).
    """

    volatility: Volatility = "expected"
    headroom: bool = True
    thompson: bool = True
    sampling: bool = False
    random: bool = False
    visit_power: float = 1.0
    ucb: float = 0.0
    entropy_power: float = 0.5
    forgetting: float = 0.99
    step: float = 0.3
    clusters: int | None = None
    linear: bool = True
    prior_strength: float = 2.0
    progress: bool = True
    fresh: bool = True
    balanced_replay: bool = True
    contrast: bool = True
    search: bool = True
    search_depth: int = 3
    base_search: bool = True

    def __post_init__(self) -> None:
        if self.volatility not in ("expected", "within", "temporal", "both"):
            raise ConfigError(f"volatility is {self.volatility!r}; use expected, within, temporal or both.")
        for name, low, high in (
            ("forgetting", 0, 1),
            ("step", 0, 1),
            ("visit_power", None, 10),
            ("ucb", None, None),
            ("entropy_power", None, 10),
            ("prior_strength", 0, None),
        ):
            value = getattr(self, name)
            above = value >= 0 if low is None else value > low
            if not above or value == np.inf or (high is not None and value > high):
                raise ConfigError(f"{name} is {value}; it must be {'>= 0' if low is None else f'> {low}'}"
                                  f" and {'finite' if high is None else f'<= {high}'}.")  # fmt: skip
        if self.search_depth < 1:
            raise ConfigError(
                f"search_depth is {self.search_depth}; it must be at least 1 (as long as other failing groups)."
            )
        if self.clusters is not None and (not isinstance(self.clusters, int) or self.clusters < 1):
            raise ConfigError(
                f"clusters is {self.clusters}; it must be a whole number, at least 1 (1 = one pooled posterior)."
            )
