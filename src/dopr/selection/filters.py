"""Strategies that judge a group by its own rewards, during or after the rollouts. What they drop counts as spent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError
from dopr.selection import chooser
from dopr.selection.controls import Uniform
from dopr.selection.history import Floats, Group, History, Rows
from dopr.selection.rollouts import DROP, KEEP, Review, is_mixed, scorable_rewards
from dopr.selection.selector import Selector
from dopr.selection.settings import Pick, SelectorConfig


class DynamicSampling(Uniform):
    """DAPO's filter (Yu et al. 2025, arXiv 2503.14476): groups whose rewards are all equal are replaced by fresh prompts.

    Departs from the authors' code in that an exhausted refill budget leaves a smaller batch instead of ending the run.
    """

    name = "dapo"
    max_refills = 10

    def review(self, prompt_id: str, rewards: Sequence[float | None]) -> Review:
        """Keep exactly the groups that carry an advantage, after the sequential caps, if any were set."""
        verdict = super().review(prompt_id, rewards)
        return verdict if verdict.action == "more" else KEEP if is_mixed(rewards) else DROP


@dataclass(frozen=True, kw_only=True)
class BandOptions:
    """The difficulty band, as success rates.

    Attributes:
        low: Lowest rate kept. Default 0.25: the authors' bands are symmetric, and this is the middle one.
        high: Highest rate kept.
    """

    low: float = 0.25
    high: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ConfigError(f"The band [{self.low}, {self.high}] must satisfy 0 <= low <= high <= 1.")


class DifficultyBand(DynamicSampling):
    """Online difficulty filtering (Bae et al. 2025, arXiv 2504.03380): keep groups of medium success rate, replace the others."""

    name = "band"
    Options = BandOptions
    options: BandOptions

    def review(self, prompt_id: str, rewards: Sequence[float | None]) -> Review:
        """Keep the groups whose success rate lies within the band."""
        verdict = Selector.review(self, prompt_id, rewards)
        if verdict.action == "more":
            return verdict
        group = self.scale.group(rewards, learn=False)
        return KEEP if group and self.options.low <= group.rate <= self.options.high else DROP


@dataclass(frozen=True, kw_only=True)
class GresoOptions:
    """Switches of GRESO; the defaults are the authors'.

    Attributes:
        base: Initial base probability of exploring a prompt after one constant group.
        step: How far the two base probabilities move per round.
        floor: Least probability of exploring a prompt.
        target: Wanted share of constant groups; a third of it easy, the rest hard.
    """

    base: float = 0.5
    step: float = 0.01
    floor: float = 0.01
    target: float = 0.25

    def __post_init__(self) -> None:
        for name in ("base", "step", "floor", "target"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")


_JUDGED = 8  # groups


class Greso(Selector):
    """GRESO (Zheng et al. 2025, arXiv 2506.02177): skip prompts whose last groups were constant, before any rollout.

    A candidate after c constant groups in a row passes with probability max(b^c, floor), where b adapts, apart for easy
    (all right) and hard (all wrong) prompts, to hold the share of constant groups at its target. Constant groups that
    slip through are replaced, as by the authors. Departs in judging groups by equality of rewards, so that no reward
    scale or group size is assumed, in filling a round from the skipped where too few pass, and in adapting to 8 groups at least: of
    one prompt and its replacements the last is always mixed, so its share of constant groups says nothing.
    """

    name = "greso"
    Options = GresoOptions
    options: GresoOptions
    max_refills = 10
    bounds = (0.05, 0.95)

    def __init__(self, ids: Sequence[str] | range, config: SelectorConfig, options: GresoOptions | None = None) -> None:
        super().__init__(ids, config, options)
        self.history = History(len(ids), forgetting=1.0, step=1.0, per_prompt=True)
        self.easy = self.hard = self.options.base
        self._outcomes = np.zeros(3)  # groups, easy and hard constant groups since the last adaptation

    def ask(self, exclude: Collection[int] = ()) -> list[Pick]:
        """Adapt the base probabilities to the groups told since they were last adapted, then choose."""
        groups, easy, hard = self._outcomes
        if groups >= _JUDGED:
            low, high = self.bounds
            o = self.options
            # Too many constant groups: explore such prompts less.
            self.easy = float(np.clip(self.easy - o.step * np.sign(easy / groups - o.target / 3), low, high))
            self.hard = float(np.clip(self.hard - o.step * np.sign(hard / groups - 2 * o.target / 3), low, high))
            self._outcomes[:] = 0
        return super().ask(exclude)

    def score(self, rows: Rows) -> Floats:
        """Probability of passing."""
        easy = self.history.last_rate[rows] > 0.5  # of constant groups: all right, not all wrong
        passing = np.where(easy, self.easy, self.hard) ** self.history.constant_run[rows]
        return np.maximum(passing, self.options.floor)

    def choose(self, scores: Floats, k: int) -> NDArray[np.int64]:
        """Candidates that pass their coin flip, at random; should they be too few, some that did not."""
        return chooser.argmax((self.rng.random(len(scores)) < scores).astype(np.float64), k, self.rng)

    def review(self, prompt_id: str, rewards: Sequence[float | None]) -> Review:
        """Drop constant groups."""
        verdict = super().review(prompt_id, rewards)
        return verdict if verdict.action == "more" else KEEP if is_mixed(rewards) else DROP

    def observe(self, row: int, group: Group) -> None:
        """Count what the adaptation needs."""
        self.history.observe(row, self.round, group)
        self._outcomes += (1, not group.mixed and group.rate > 0.5, not group.mixed and group.rate <= 0.5)

    def estimators(self) -> dict[str, History]:
        """Trailing constant groups per prompt."""
        return {"prompts": self.history}

    def metrics(self) -> dict[str, float]:
        """Adds the two base probabilities."""
        return super().metrics() | {"explore_easy": self.easy, "explore_hard": self.hard}

    def state_dict(self) -> dict[str, Any]:
        """Adds the adaptation."""
        return super().state_dict() | {"explore": [self.easy, self.hard], "outcomes": self._outcomes.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore."""
        super().load_state_dict(state)
        self.easy, self.hard = map(float, state["explore"])
        self._outcomes = np.asarray(state["outcomes"], np.float64).copy()


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """Switches of SPEED.

    Attributes:
        screen: Rollouts of the screening; ``None`` = 4 as the authors', but at most half a group.
    """

    screen: int | None = None

    def __post_init__(self) -> None:
        if self.screen is not None and self.screen < 2:
            raise ConfigError(f"screen is {self.screen}; two rollouts at least are needed to differ.")


class Speed(Uniform):
    """SPEED (Zhang et al. 2025, arXiv 2506.09016): a few screening rollouts, the rest of the group only if they differ.

    Departs in completing a prompt within its round, so no queue of half-rolled prompts can grow stale.
    """

    name = "speed"
    Options = SpeedOptions
    options: SpeedOptions
    max_refills = 10

    @property
    def screen(self) -> int:
        """Screening rollouts."""
        group = self.config.group_size
        return min(group, self.options.screen or max(2, min(4, group // 2)))

    def allocate(self, rows: Rows) -> list[int]:
        """The screening."""
        return [self.screen] * len(rows)

    def review(self, prompt_id: str, rewards: Sequence[float | None]) -> Review:
        """Drop what agrees after screening; complete the others."""
        if len(rewards) >= self.config.group_size:
            return KEEP if is_mixed(rewards) else DROP
        return Review("more", self.config.group_size - len(rewards)) if is_mixed(rewards) else DROP


@dataclass(frozen=True, kw_only=True)
class ReinforceAdaOptions:
    """Switches of Reinforce-Ada; the defaults are the authors'.

    Attributes:
        keep: Rollouts wanted, half of them right and half wrong.
        rounds: Most rounds of G rollouts per prompt.
    """

    keep: int = 4
    rounds: int = 4

    def __post_init__(self) -> None:
        if self.keep < 2 or self.rounds < 1:
            raise ConfigError(f"keep is {self.keep} and rounds {self.rounds}; they must be at least 2 and 1.")


class ReinforceAda(Uniform):
    """Reinforce-Ada (Xiong et al. 2025, arXiv 2510.04996): rounds of rollouts until enough are right and enough wrong.

    The baseline comes from all rollouts of the prompt, as theirs. Departs in what enters the update: one group's worth
    of rows, drawn in strata and weighted so that the mean over rows stays that of all of them, instead of ``keep``
    unweighted ones; and in calling right what lies above the prompt's mean, so that continuous rewards work.
    """

    name = "reinforce-ada"
    Options = ReinforceAdaOptions
    options: ReinforceAdaOptions
    default_prompts_per_round = 1

    def review(self, prompt_id: str, rewards: Sequence[float | None]) -> Review:
        """More until both signs are there, or the rounds are used up."""
        known = np.array(scorable_rewards(rewards))
        half, group = self.options.keep // 2, self.config.group_size
        if is_mixed(rewards):
            right = int((known > (known / len(known)).sum()).sum())  # divided first: sums of huge rewards overflow
            if min(right, len(known) - right) >= half:
                return KEEP
        return Review("more", group) if len(rewards) + group <= self.options.rounds * group else KEEP
