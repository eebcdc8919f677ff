"""The controls: batch GRPO and one random prompt per update. No claim for a rule means anything without them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats, Rows
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
