"""What the features of a prompt say of its success rate beyond the record of its cluster: a ridge regression, kept up to date.

Clusters share evidence between prompts that lie close together. A direction of the feature space can tell prompts apart that
clustering mixes, because the most of their distance is about something else; it is learned here from the first groups on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.selection.clusters import principal_components
from dopr.selection.history import Floats, Rows

_DIMENSIONS = 16
_RIDGE = 1.0  # as if each direction of the features had been seen once, without effect
_KEEP = 0.98  # of what was learned, per group: the policy moves under it
_LEAST = 1 / 64  # no prompt is given up, or taken for granted, for its features alone


class LinearPrior:
    """Regression of a prompt's success rate, minus its cluster's rate, on its features; least squares with exponential forgetting.

    With x the features of a prompt, y the rate of a group of it and m the rate of its cluster before, it minimises the discounted
    sum of (y - m - w x)^2 plus |w|^2.

    Args:
        size: Prompts of the pool. Until features come, nothing is learned.

    Attributes:
        features: Principal components of the prompt features, mean squared length 1, shape (prompts, up to 16).
        sums: Discounted sums of x x' and, in the last column, of x (y - m); shape (d, d + 1).
    """

    def __init__(self, size: int) -> None:
        self.features: NDArray[np.float32] = np.zeros((size, 0), np.float32)
        self.sums: Floats = np.zeros((0, 1))
        self._w: NDArray[np.floating] = np.zeros(0)

    def set_features(self, features: NDArray[np.floating], seed: int) -> None:
        """Begin with ``features`` of shape (prompts, D)."""
        self.features = principal_components(features, _DIMENSIONS, seed)
        d = self.features.shape[1]
        self.sums, self._w = np.zeros((d, d + 1)), np.zeros(d)

    def learn(self, row: int, deviation: float) -> None:
        """From a group of prompt ``row`` whose success rate was ``deviation`` above its cluster's."""
        if len(self.sums):
            x = self.features[row].astype(np.float64)
            self.sums *= _KEEP
            self.sums += np.outer(x, np.append(x, deviation))
            self._solve()

    def adjust(self, rows: Rows, rates: Floats) -> Floats:
        """Success rates of prompts ``rows`` that the regression expects where their clusters have ``rates``, both of shape (R,)."""
        if not len(self.sums):
            return rates
        expected = rates + self.features[rows] @ self._w
        return np.minimum(np.maximum(expected, np.minimum(rates, _LEAST)), np.maximum(rates, 1 - _LEAST))

    def _solve(self) -> None:
        d = len(self.sums)
        self._w = np.linalg.solve(self.sums[:, :d] + _RIDGE * np.eye(d), self.sums[:, d])

    def state_dict(self) -> dict[str, Any]:
        """Plain arrays."""
        return {"features": self.features.copy(), "sums": self.sums.copy()}

    def load_state_dict(self, state: dict[str, Any], rows: Rows) -> None:
        """Restore; ``rows`` says where each stored prompt lives now, -1 = gone. Prompts that are new have no features."""
        stored = np.asarray(state["features"], np.float32)
        self.features = np.zeros((len(self.features), stored.shape[1]), np.float32)
        self.features[rows[rows >= 0]] = stored[rows >= 0]
        self.sums = np.asarray(state["sums"], np.float64).copy()
        self._solve()
