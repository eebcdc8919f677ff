"""Search: further rollouts of a failing group at a higher temperature, where the policy has never been right.

As long as nothing succeeds nothing can be learned, and a first success at the policy's own rate p takes 1/p rollouts on average
(theorem T5). A flatter distribution draws rare ways more often: at temperature T a choice of probability p is drawn in proportion to
p^(1/T). Where every step must be right it may as well find less, so the temperature competes with the policy's own: which of
the two the next failing group goes on with is a Thompson draw over how often each has found a success.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dopr.selection.history import Floats

# Pseudo-successes and pseudo-failures: the search starts with the better expectation, or it would hardly be tried.
_PRIOR = ((1.0, 16.0), (4.0, 16.0))


class Search:
    """Chooses the temperature factor of further rollouts.

    Args:
        factor: On the sampling temperature, above 0; 1 = no search.

    Attributes:
        counts: Successes and failures of further rollouts, with the prior's, at the policy's own temperature and at the other,
            shape (2, 2).
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.counts: Floats = np.array(_PRIOR)
        self._open: dict[str, int] = {}  # prompts whose group goes on, and at which of the two

    def heat(self, prompt_id: str, rng: np.random.Generator) -> float:
        """The factor for the next rollouts of a prompt; the same until its group has ended."""
        if self.factor == 1:
            return 1.0
        if prompt_id not in self._open:
            own, other = rng.beta(self.counts[:, 0], self.counts[:, 1])
            self._open[prompt_id] = int(other > own)
        return self.factor if self._open[prompt_id] else 1.0

    def tell(self, prompt_id: str, successes: Sequence[bool]) -> None:
        """Learn which of the further rollouts of a finished group succeeded; nothing if it was not asked about."""
        if (arm := self._open.pop(prompt_id, None)) is not None:
            self.counts[arm] += (sum(successes), len(successes) - sum(successes))

    @property
    def share(self) -> float:
        """Share of the further rollouts that were drawn at the other temperature; 0 before any."""
        drawn = self.counts.sum(axis=1) - np.sum(_PRIOR, axis=1)
        return float(drawn[1] / drawn.sum()) if drawn.sum() else 0.0
