"""Strategies that estimate each prompt from its own past rewards and choose before any rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError
from dopr.selection import chooser
from dopr.selection.estimators import BetaPosterior, RunningMean
from dopr.selection.history import Floats, Group, Rows
from dopr.selection.selector import Selector
from dopr.selection.settings import SelectorConfig


class PosteriorSelector(Selector):
    """Base of strategies with one Beta posterior per prompt."""

    def __init__(self, ids: Sequence[str] | range, config: SelectorConfig, options: Any = None) -> None:
        super().__init__(ids, config, options)
        self.posterior = self.make_posterior()

    def make_posterior(self) -> BetaPosterior:
        """What is known before anything is seen: Beta(1, 1), forgotten per visit as the option ``keep`` says."""
        return BetaPosterior(len(self.ids), keep=self.options.keep)

    def observe(self, row: int, group: Group) -> None:
        """Update the visited prompt; no other moves."""
        self.posterior.observe(row, group)

    def predict(self, rows: Rows) -> Floats:
        """Posterior means."""
        return self.posterior.mean(rows)

    def estimators(self) -> dict[str, BetaPosterior]:
        """The posteriors."""
        return {"prompts": self.posterior}


@dataclass(frozen=True, kw_only=True)
class KeepOptions:
    """Forgetting of a per-prompt posterior.

    Attributes:
        keep: Discount of the past per visit, in [0, 1]; 1 forgets nothing.
    """

    keep: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.keep <= 1:
            raise ConfigError(f"keep is {self.keep}; it must lie between 0 (only the last group counts) and 1.")


@dataclass(frozen=True, kw_only=True)
class MoppsOptions(KeepOptions):
    """Switches of MoPPS.

    Attributes:
        keep: The authors' lambda: 1 for mathematics, 0.5 where the policy moves fast.
        target: Success rate sought.
    """

    target: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.target < 1:
            raise ConfigError(f"target is {self.target}; a success rate to seek lies above 0 and below 1.")


class Mopps(PosteriorSelector):
    """MoPPS (Qu et al. 2025, arXiv 2507.04632): a Thompson draw per candidate, the nearest to 0.5 are taken."""

    name = "mopps"
    Options = MoppsOptions
    options: MoppsOptions

    def score(self, rows: Rows) -> Floats:
        """Minus the distance of the draw to the target."""
        return -np.abs(self.posterior.draw(rows, self.rng) - self.options.target)


@dataclass(frozen=True, kw_only=True)
class SpoOptions:
    """Switches of the SPO sampler.

    Attributes:
        rho: Discount per rollout, in (0, 1]. The authors move it in [0.875, 0.96] with the KL divergence since the
            last visit; here it is fixed. Default 0.96.
        pseudo_counts: Weight of the prior, in rollouts.
        floor: Added to every weight.
    """

    rho: float = 0.96
    pseudo_counts: float = 8.0
    floor: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.rho <= 1 or not self.pseudo_counts > 0 or not self.floor > 0:
            raise ConfigError(
                f"rho is {self.rho}, pseudo_counts {self.pseudo_counts}, floor {self.floor}; "
                "rho must lie in (0, 1], the others above 0."
            )


class Spo(PosteriorSelector):
    """Sampler of SPO (Xu & Ding 2025, arXiv 2509.13232): weights sqrt(v (1 - v)) + 0.05, drawn without replacement.

    Departs in a fixed forgetting, and in starting every value at 1/2 instead of from rollouts of the base policy. Only
    the sampler: the advantages stay group-relative.
    """

    name = "spo"
    Options = SpoOptions
    options: SpoOptions

    def make_posterior(self) -> BetaPosterior:
        """Pseudo-counts at 1/2, forgotten per rollout."""
        o = self.options
        return BetaPosterior(len(self.ids), prior=o.pseudo_counts / 2, keep=o.rho, per_rollout=True, anchored=False)

    def score(self, rows: Rows) -> Floats:
        """Sampling weights."""
        v = self.posterior.mean(rows)
        return np.sqrt(v * (1 - v)) + self.options.floor

    def choose(self, scores: Floats, k: int) -> NDArray[np.int64]:
        """In proportion to the weights, without replacement."""
        return chooser.sample(scores, k, self.rng)


class Learnability(PosteriorSelector):
    """Learnability p (1 - p), highest first: SFL (Rutherford et al. 2024) and LILO (arXiv 2502.12272), from history.

    They measure p by trial rollouts of every candidate; here E[p (1 - p)] under the posterior of past rollouts costs
    none. A prompt never seen counts as Beta(1, 1), that is, 1/6 against at most 1/4.
    """

    name = "learnability"
    Options = KeepOptions
    options: KeepOptions

    def score(self, rows: Rows) -> Floats:
        """E[p (1 - p)]."""
        return self.posterior.expected_variance(rows)


class Kimi(PosteriorSelector):
    """Prioritised sampling of Kimi k1.5 (arXiv 2501.12599): in proportion to 1 - success rate.

    The rate is the posterior mean under Beta(1, 1), so a prompt never seen weighs 1/2 and none ever weighs nothing.
    """

    name = "kimi"
    Options = KeepOptions
    options: KeepOptions

    def score(self, rows: Rows) -> Floats:
        """Expected failure rate."""
        return 1 - self.posterior.mean(rows)

    def choose(self, scores: Floats, k: int) -> NDArray[np.int64]:
        """In proportion to the failure rate, without replacement."""
        return chooser.sample(scores, k, self.rng)


@dataclass(frozen=True, kw_only=True)
class HardEasyOptions(KeepOptions):
    """Switches of the pair.

    Attributes:
        hard: Success rate of the hard but solvable prompt.
        easy: Success rate of the easy but brittle one.
        keep: Discount of the past per visit.
    """

    hard: float = 0.25
    easy: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.hard < self.easy < 1:
            raise ConfigError(f"hard is {self.hard} and easy {self.easy}; they must satisfy 0 < hard < easy < 1.")


class HardEasy(PosteriorSelector):
    """Pairs of one hard but solvable and one easy but brittle prompt, after "Beyond Variance" (arXiv 2602.03452).

    Our reading: Thompson draws of the success rate, one prompt nearest to ``hard`` and one nearest to ``easy`` in turn;
    with one prompt per round, hard in one round and easy in the next. The authors' rule was not available to us.
    """

    name = "hard-easy"
    Options = HardEasyOptions
    options: HardEasyOptions
    default_prompts_per_round = 2

    def score(self, rows: Rows) -> Floats:
        """The draws themselves; ``choose`` compares them with both targets."""
        return self.posterior.draw(rows, self.rng)

    def choose(self, scores: Floats, k: int) -> NDArray[np.int64]:
        """Hard and easy in turn, none twice."""
        left = np.arange(len(scores))
        picked: list[int] = []
        for turn in range(self.round * k, (self.round + 1) * k):
            target = self.options.easy if turn % 2 else self.options.hard
            nearest = int(chooser.argmax(-np.abs(scores[left] - target), 1, self.rng)[0])
            picked.append(int(left[nearest]))
            left = np.delete(left, nearest)
        return np.array(picked, np.int64)


@dataclass(frozen=True, kw_only=True)
class DisagreementOptions:
    """Switches of disagreement.

    Attributes:
        step: Weight of the newest group in the running mean.
        unseen: Disagreement assumed of a prompt never seen; high, so that unseen ones come first.
    """

    step: float = 0.5
    unseen: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1 or not 0 <= self.unseen <= 1:
            raise ConfigError(f"step is {self.step}, unseen {self.unseen}; they must lie in (0, 1] and [0, 1].")


class Disagreement(Selector):
    """Where the answers of a group differ most, after SGAC (arXiv 2605.01823): many wrong answers beat one wrong answer.

    Our reading: a running mean of the chance that two rollouts of a group give different final answers, highest first.
    The authors' formula was not available to us.
    """

    name = "disagreement"
    Options = DisagreementOptions
    options: DisagreementOptions

    def __init__(
        self, ids: Sequence[str] | range, config: SelectorConfig, options: DisagreementOptions | None = None
    ) -> None:
        super().__init__(ids, config, options)
        o = self.options
        self.running = RunningMean(len(ids), initial=o.unseen, step=o.step)

    def score(self, rows: Rows) -> Floats:
        """Running disagreement."""
        return self.running.value[rows].astype(np.float64)

    def observe(self, row: int, group: Group) -> None:
        """Update the visited prompt."""
        self.running.observe(row, group.disagreement)

    def estimators(self) -> dict[str, RunningMean]:
        """The running means."""
        return {"prompts": self.running}
