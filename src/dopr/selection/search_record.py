"""How often a search for a first success has found one, by cluster and depth: what a group is worth that fails at first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats, Rows

_KEEP = 0.98  # per search: the policy moves under the record
_STRENGTH = 2.0  # of all clusters' rate, in searches of a cluster: two of its own outweigh it
_AS_ELSEWHERE = 0.75  # see ``SearchRecord.goes_on``
_OCTAVES = 16  # the last holds all that is deeper


def octave(failures: int, cap: int) -> int:
    """How deep the draw after ``failures`` is: 0 below half of ``cap``, 1 below all of it, 2 below twice as much and so on."""
    return min(math.frexp(2 * failures // cap)[1], _OCTAVES - 1)


class SearchRecord:
    """Discounted counts of searches that found a success and of those given up, shared between clusters.

    Args:
        clusters: Number of clusters.
        cap: Rollouts of a failing group without a search. In as many draws one success is expected before the first search, and
            as many of a cluster weigh as much as what all clusters say.

    Attributes:
        counts: Found and given up, discounted, shape (clusters, 2).
        in_vain: Searches of each cluster since the last that found a success.
        draws: Discounted counts of successes and draws by octave, shape (clusters, octaves, 2).
        spent: Discounted counts of successes and rollouts of all groups that are searched if they fail, shape (2,).
    """

    def __init__(self, clusters: int, cap: int) -> None:
        self.cap = cap
        self.counts: Floats = np.zeros((clusters, 2))
        self.in_vain: NDArray[np.int32] = np.zeros(clusters, np.int32)
        self.draws: Floats = np.zeros((clusters, _OCTAVES, 2))
        self.spent: Floats = np.zeros(2)

    def learn(self, cluster: int, found: bool, draws: Sequence[int]) -> None:
        """Add a search on a prompt of ``cluster``; ``draws`` are the failures before each, and the last found what it found."""
        octaves = [octave(n, self.cap) for n in draws]
        self.counts *= _KEEP
        self.draws *= _KEEP
        np.add.at(self.draws, (cluster, octaves, 1), 1)
        if found:
            self.draws[cluster, octaves[-1], 0] += 1
        self.counts[cluster, 0 if found else 1] += 1
        self.in_vain[cluster] = 0 if found else self.in_vain[cluster] + 1

    def spend(self, found: bool, rollouts: int) -> None:
        """Add a group that is searched if it fails, whether it was or not."""
        self.spent = self.spent * _KEEP + (found, rollouts)

    @property
    def usual(self) -> float:
        """Successes per rollout of groups that are searched if they fail."""
        return float((1 + self.spent[0]) / (self.cap + self.spent[1]))

    def rates(self, clusters: Rows) -> Floats:
        """Expected share of searches that find a success, for ``clusters``, same shape; 1/2 before the first one."""
        found, given_up = self.counts.sum(axis=0)
        everywhere = (found + 1) / (found + given_up + 2)
        own = self.counts[clusters]
        rates: Floats = (_STRENGTH * everywhere + own[:, 0]) / (_STRENGTH + own.sum(axis=1))
        return rates

    def goes_on(self, cluster: int, failures: int, deepest: int) -> bool:
        """Whether a search of ``cluster`` goes on after so many ``failures``, of ``deepest`` at most.

        Up to ``cap`` it does: a record of searches that ended earlier would say nothing of the draws that they left. Then as long as its
        draws promise three quarters of what groups that are searched if they fail yield per rollout (less than all, since both are
        estimates), and one success in three times ``cap``.
        """
        left = range(failures, deepest)
        if not left or failures < self.cap:
            return bool(left)
        return self.promised(cluster, left) > max(_AS_ELSEWHERE * self.usual, 1 / (3 * self.cap))

    def promised(self, cluster: int, draws: Sequence[int]) -> float:
        """Successes per draw of going on with a search of ``cluster``, given up where that is highest (its Gittins index).

        Looking ahead that far, a search is not given up before draws that pay more than the next ones. Draws of a depth not
        reached yet are expected to pay as those before, and at least one in ``cap``.

        Args:
            cluster: Its cluster.
            draws: Failures before each draw that is left, in order; not empty.
        """
        found, drawn = self.draws.sum(axis=0).T
        everywhere = (max(1.0, self.cap * self.usual) + found) / (self.cap + drawn)
        own = self.draws[cluster]
        by_octave = (self.cap * everywhere + own[:, 0]) / (self.cap + own[:, 1])
        chances = by_octave[[octave(n, self.cap) for n in draws]]
        made = np.cumprod(np.concatenate([[1.0], 1 - chances[:-1]]))  # chance that it comes to this draw
        return float(np.max(np.cumsum(made * chances) / np.cumsum(made)))

    def state_dict(self) -> dict[str, Any]:
        """Plain arrays."""
        return {
            "counts": self.counts.copy(),
            "in_vain": self.in_vain.copy(),
            "draws": self.draws.copy(),
            "spent": self.spent.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore."""
        self.counts = np.asarray(state["counts"], np.float64).copy()
        self.in_vain = np.asarray(state["in_vain"], np.int32).copy()
        self.draws, self.spent = (np.asarray(state[name], np.float64).copy() for name in ("draws", "spent"))
