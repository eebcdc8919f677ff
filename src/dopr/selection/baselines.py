"""The controls: batch GRPO, its dynamic-sampling filter, and one random prompt per update. No claim for a rule means anything without them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats, Rows
from dopr.selection.rollouts import DROP, KEEP, Review, is_mixed
from dopr.selection.selector import Selector


class Uniform(Selector):
    """Plain batch GRPO: every round takes the next ``prompts_per_round`` prompts of a shuffled epoch."""

    name = "uniform"
    takes_all_candidates = True

    def score(self, rows: Rows) -> Floats:
        """Equal scores."""
        return np.ones(len(rows))

    def choose(self, scores: Floats, k: int) -> NDArray[np.int64]:
        """The whole candidate batch, in deal order."""
        return np.arange(k)


class RandomOne(Selector):
    """One prompt per update, uniformly at random from the same candidate batches the dopr rule sees."""

    name = "random-one"

    def score(self, rows: Rows) -> Floats:
        """Equal scores."""
        return np.ones(len(rows))

    def choose(self, scores: Floats, k: int) -> NDArray[np.int64]:
        """Uniform, without replacement."""
        return self.rng.choice(len(scores), k, replace=False)


class DynamicSampling(Uniform):
    """DAPO's filter (Yu et al. 2025): groups whose rewards are all equal are dropped and replaced by fresh prompts.

    Dropped rollouts count as spent. Departs from the authors' code in that an exhausted refill budget leaves a smaller
    batch instead of ending the run.
    """

    name = "dapo"
    max_refills = 10

    def review(self, prompt_id: str, rewards: Sequence[float | None]) -> Review:
        """Keep exactly the groups that carry an advantage, after the sequential caps, if any were set."""
        verdict = super().review(prompt_id, rewards)
        return verdict if verdict.action == "more" else KEEP if is_mixed(rewards) else DROP
