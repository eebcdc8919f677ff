"""How often a search for a first success has found one, by cluster: what a group is worth that fails at first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats, Rows

_KEEP = 0.98  # per search: the policy moves under the record
_STRENGTH = 2.0  # of all clusters' rate, in searches of a cluster: two of its own outweigh it


class SearchRecord:
    """Discounted counts of searches that found a success and of those given up, shared between clusters.

    Args:
        clusters: Number of clusters.

    Attributes:
        counts: Found and given up, discounted, shape (clusters, 2).
        in_vain: Searches of each cluster since the last that found a success.
    """

    def __init__(self, clusters: int) -> None:
        self.counts: Floats = np.zeros((clusters, 2))
        self.in_vain: NDArray[np.int32] = np.zeros(clusters, np.int32)

    def learn(self, cluster: int, found: bool) -> None:
        """Add a search on a prompt of ``cluster``."""
        self.counts *= _KEEP
        self.counts[cluster, 0 if found else 1] += 1
        self.in_vain[cluster] = 0 if found else self.in_vain[cluster] + 1

    def rates(self, clusters: Rows) -> Floats:
        """Expected share of searches that find a success, for ``clusters``, same shape; 1/2 before the first one."""
        found, given_up = self.counts.sum(axis=0)
        everywhere = (found + 1) / (found + given_up + 2)
        own = self.counts[clusters]
        rates: Floats = (_STRENGTH * everywhere + own[:, 0]) / (_STRENGTH + own.sum(axis=1))
        return rates

    def state_dict(self) -> dict[str, Any]:
        """Plain arrays."""
        return {"counts": self.counts.copy(), "in_vain": self.in_vain.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore."""
        self.counts = np.asarray(state["counts"], np.float64).copy()
        self.in_vain = np.asarray(state["in_vain"], np.int32).copy()
