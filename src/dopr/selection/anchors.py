"""Survey and anchors: keep what the base policy can still do where training has not been yet.

An update on one prompt moves the policy on all others. In our experiments a skill that the base policy solved every second
time was at zero when it was first rolled out, a hundred updates later, and then stayed locked: no rollout succeeded, so no
group taught anything. Two cheap measures against it:

*Survey*: the first rounds roll out every cluster of prompts once or a few times, four clusters each. The successes are learned from
at once; every posterior starts from a look at its cluster.
*Anchors*: the survey's other rollouts are kept with the token distributions they were drawn from, pi_0: the base policy's, or those of
some updates later. Until their cluster has shown a success, each update also holds the policy to pi_0 along some of them, at each
position over the likeliest tokens and the rest: the tokens that were not drawn keep their odds, and the one that was, which led
to a failure, may become less likely but not more (``dopr.train.anchoring``). That costs no rollouts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Group
from dopr.selection.memory import Success, SuccessMemory
from dopr.selection.rollouts import KEEP, Review
from dopr.selection.selector import Selector
from dopr.selection.settings import Pick, SelectorConfig

_AT_ONCE = 4  # clusters per round of the survey: all but the first show how far training elsewhere has helped


class AnchoredSelector(Selector):
    """Base of strategies that know clusters of prompts and whose options have ``survey`` and ``anchors``."""

    labels: NDArray[np.int32]
    clustered: bool
    n_clusters: int

    def __init__(self, ids: Sequence[str] | range, config: SelectorConfig, options: Any = None) -> None:
        super().__init__(ids, config, options)
        self.anchors = SuccessMemory(1)
        self._left: list[int] = []  # clusters that the survey has yet to see
        self._surveying = False
        self._survey = np.zeros(2)  # rollouts and successes of its first round, before any update
        self._transfer = np.zeros(2)  # fading weight, at most 1, and success rate of later first looks at clusters
        self._failing: set[int] = set()  # clusters seen again after the survey

    @abstractmethod
    def memory_key(self, success: Success) -> int:
        """Cluster of the rollout's prompt."""

    @property
    def survey_rollouts(self) -> int:
        """Rollouts per cluster at the start; 0 where there are no clusters or nothing is replayed."""
        return self.options.survey if self.clustered and self.n_replay and self.options.anchors else 0

    @property
    def wants_rejected(self) -> bool:
        """Whether the round in progress is one of the survey, whose rejected rollouts become anchors."""
        return self._surveying

    def ask(self, exclude: Collection[int] = ()) -> list[Pick]:
        """The survey first, one prompt of every cluster, four of them a round; then the strategy's own choice."""
        if self.round == 0 and self.survey_rollouts:
            members = self._members()
            self._left = [int(c) for c in self.rng.permutation(self.n_clusters) if len(members[c])]
            self.anchors = SuccessMemory(self.n_clusters * self.survey_rollouts)
        self._surveying = bool(self._left)
        if not self._surveying:
            return super().ask(exclude)
        self.round += 1
        members = self._members()
        now, self._left = self._left[:_AT_ONCE], self._left[_AT_ONCE:]
        rows = [int(self.rng.choice(members[cluster])) for cluster in now]
        self.candidate_rows, self.candidate_scores = np.array(rows, np.int64), np.ones(len(rows))
        return [Pick(self._id(row), row, self.survey_rollouts, 1.0) for row in rows]

    def _members(self) -> list[NDArray[np.int64]]:
        order = np.argsort(self.labels, kind="stable")
        return np.split(order, np.searchsorted(self.labels[order], np.arange(1, self.n_clusters)))

    def review(self, prompt_id: str, rewards: Sequence[float | None]) -> Review:
        """A survey is as long as it was asked for."""
        return KEEP if self.wants_rejected else super().review(prompt_id, rewards)

    def tell(
        self, prompt_id: str, rewards: Sequence[float | None], answers: Sequence[str] | None = None
    ) -> Group | None:
        """Learn from a group, and from groups on clusters without a success how far training elsewhere serves these."""
        cluster = int(self.labels[self._row(prompt_id)])
        first = self.round == 1 and self._surveying
        locked = self._surveying or (bool(self.anchors.count(cluster)) and cluster not in self._failing)
        group = super().tell(prompt_id, rewards, answers)
        if group is not None and first:
            self._survey += (group.n, group.n * group.rate)
        elif group is not None and locked:  # what a search finds counts as well: what it can unlock need not be held
            fade = 0.95**group.n
            self._transfer = fade * self._transfer + (1 - fade) * np.array([1.0, group.rate])
        if group is not None and not self._surveying:
            self._failing.add(cluster)
        return group

    @property
    def transfer(self) -> float:
        """Share of what was left to gain that clusters gain by training elsewhere, before their first success; in [0, 1]."""
        base = (self._survey[1] + 1.0) / (self._survey[0] + 4.0)
        weight, total = self._transfer
        gained = total + (1 - weight) * base - base
        return float(np.clip(gained / (1.0 - base), 0.0, 1.0))

    def remember(self, success: Success) -> None:
        """Keep the success; its cluster needs no anchors any more."""
        super().remember(success)
        self.anchors.discard(self.memory_key(success))

    def witness(self, rejected: Success) -> None:
        """Keep a rejected rollout of the survey as an anchor, unless its cluster has shown a success."""
        key = self.memory_key(rejected)
        if self.wants_rejected and not self.memory.count(key):
            self.anchors.add(rejected, key)

    def hold(self) -> list[Success]:
        """Some anchors of the clusters that have shown no success.

        A cluster not tried again since the survey counts less the more such clusters turn out to succeed: where one skill is
        shared by all, training elsewhere serves them, and anchors would only hold it back.
        """
        untried = (1.0 - self.transfer) ** 2  # in proportion, those left would still slow a shared skill down
        weights = {key: 1.0 if key in self._failing else untried for key in self.anchors.used_keys()}
        expected = sum(weights[key] * self.anchors.count(key) for key in weights)
        n = min(self.options.anchors if self.n_replay else 0, round(expected))
        return self.anchors.draw(
            n, self.rng, lambda keys: np.array([weights[k] * self.anchors.count(k) + 1e-9 for k in keys])
        )

    def metrics(self) -> dict[str, float]:
        """Adds the number of anchors left, and the transfer."""
        return super().metrics() | {"anchors": float(len(self.anchors)), "transfer": self.transfer}

    def state_dict(self) -> dict[str, Any]:
        """Adds the anchors."""
        seen = {
            "left": np.array(self._left, np.int64), "surveying": self._surveying,
            "survey": self._survey.copy(), "transfer": self._transfer.copy(), "failing": np.array(sorted(self._failing), np.int64),
        }  # fmt: skip
        return super().state_dict() | {"anchors": self.anchors.state_dict() | seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore."""
        super().load_state_dict(state)
        stored = state["anchors"]
        self.anchors = SuccessMemory(max(1, self.n_clusters * self.options.survey))
        self.anchors.load_state_dict(stored)
        self._survey, self._transfer = (np.asarray(stored[k], np.float64).copy() for k in ("survey", "transfer"))
        self._failing = {int(cluster) for cluster in stored["failing"]}
        self._left = [int(cluster) for cluster in stored["left"]]
        self._surveying = bool(stored["surveying"])
