"""Survey and anchors: keep what the base policy can still do where training has not been yet.

An update on one prompt moves the policy on all others. In our experiments a skill that the base policy solved every second
time was at zero when it was first rolled out, a hundred updates later, and then stayed locked: no rollout succeeded, so no
group taught anything. Two cheap measures against it:

*Survey*: before the first update every cluster of prompts is rolled out once or a few times. The successes are learned from at
once; every posterior starts from a look at its cluster.
*Anchors*: the survey's other rollouts, drawn from the base policy pi_0, are added to each update with ``anchor_advantage`` until
their cluster has shown a success. In expectation that is a step down the gradient of KL(pi_0 || pi) on those prompts: it
holds the policy there where it was, and costs no rollouts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats, Group
from dopr.selection.memory import Success, SuccessMemory
from dopr.selection.rollouts import KEEP, Review
from dopr.selection.selector import Selector
from dopr.selection.settings import Pick, SelectorConfig

_ROUNDING = 0.01  # nats
_ENOUGH = 2.9  # fading weight of four groups: 1 + 0.8 + 0.64 + 0.512


def anchor_advantage(log_probability: Floats, base: Floats) -> Floats:
    """Advantage of anchor rows: 1 - pi(y) / pi_0(y), not below -1; all of shape (anchors,), logarithms in nats.

    E_{y ~ pi_0} (1 - pi/pi_0) grad log pi = -grad KL(pi_0 || pi) - E_{y ~ pi} grad log pi, and the last term is 0. So the
    update is unbiased up to the clipping, and vanishes where the policy has not moved: with advantage 1 a few samples would be
    learned by heart instead. Differences below a hundredth of a nat count as none: they may be rounding, which Adam would
    scale up to full steps where there is no other gradient.
    """
    moved = np.minimum(log_probability - base, 1.0)
    return np.where(np.abs(moved) < _ROUNDING, 0.0, np.maximum(1.0 - np.exp(moved), -1.0))


class AnchoredSelector(Selector):
    """Base of strategies that know clusters of prompts and whose options have ``survey`` and ``anchors``."""

    labels: NDArray[np.int32]
    clustered: bool
    n_clusters: int

    def __init__(self, ids: Sequence[str] | range, config: SelectorConfig, options: Any = None) -> None:
        super().__init__(ids, config, options)
        self.anchors = SuccessMemory(1)
        self._survey = np.zeros(2)  # rollouts and successes of the survey
        self._held = np.zeros(2)  # fading weight and success rate of the groups on anchored clusters since

    @abstractmethod
    def memory_key(self, success: Success) -> int:
        """Cluster of the rollout's prompt."""

    @property
    def survey_rollouts(self) -> int:
        """Rollouts per cluster before the first update; 0 where there are no clusters or nothing is replayed."""
        return self.options.survey if self.clustered and self.n_replay and self.options.anchors else 0

    @property
    def wants_rejected(self) -> bool:
        """Whether the round in progress is the survey, whose rejected rollouts become anchors."""
        return self.round == 1 and self.survey_rollouts > 0

    def ask(self, exclude: Collection[int] = ()) -> list[Pick]:
        """The survey first, one prompt of every cluster; then the strategy's own choice."""
        if self.round or not self.survey_rollouts:
            return super().ask(exclude)
        self.round = 1
        rows = [int(self.rng.choice(members)) for members in self._members() if len(members)]
        self.anchors = SuccessMemory(len(rows) * self.survey_rollouts)
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
        """Learn from a group; and let all anchors go once they hold the policy back.

        Where one skill is shared by all, clusters succeed before their own first success is seen. If the latest groups on
        anchored clusters gained more than half of what the survey left to gain, what is learned elsewhere serves them.
        """
        surveyed = self.wants_rejected
        anchored = bool(self.anchors.count(int(self.labels[self._row(prompt_id)])))
        group = super().tell(prompt_id, rewards, answers)
        if group is not None and surveyed:
            self._survey += (group.n, group.n * group.rate)
        elif group is not None and anchored:
            self._held = 0.8 * self._held + (1.0, group.rate)
            base = self._survey[1] / max(self._survey[0], 1.0)
            if self._held[0] > _ENOUGH and self._held[1] / self._held[0] > (1 + base) / 2:
                self.anchors = SuccessMemory(1)
        return group

    def remember(self, success: Success) -> None:
        """Keep the success; its cluster needs no anchors any more."""
        super().remember(success)
        self.anchors.discard(self.memory_key(success))

    def witness(self, rejected: Success) -> None:
        """Keep a rejected rollout of the survey as an anchor, unless its cluster has shown a success."""
        key = self.memory_key(rejected)
        if self.wants_rejected and not self.memory.count(key):
            self.anchors.add(rejected, key)

    def replay(self) -> list[Success]:
        """Successes, and anchors of the clusters that have shown none."""
        return super().replay() + self.anchors.draw(self.options.anchors if self.n_replay else 0, self.rng)

    def metrics(self) -> dict[str, float]:
        """Adds the number of anchors left."""
        return super().metrics() | {"anchors": float(len(self.anchors))}

    def state_dict(self) -> dict[str, Any]:
        """Adds the anchors."""
        held = {"survey": self._survey.copy(), "held": self._held.copy()}
        return super().state_dict() | {"anchors": self.anchors.state_dict() | held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore."""
        super().load_state_dict(state)
        self.anchors = SuccessMemory(max(1, len(state["anchors"]["ids"])))
        self.anchors.load_state_dict(state["anchors"])
        self._survey, self._held = (np.asarray(state["anchors"][k], np.float64).copy() for k in ("survey", "held"))
