"""Strategies that follow what is known of the problems beforehand: their category or their difficulty."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError
from dopr.selection import chooser
from dopr.selection.estimators import Categories
from dopr.selection.history import Floats, Group, Rows
from dopr.selection.selector import Selector
from dopr.selection.settings import Pick, SelectorConfig


class _CategoryBandit(Selector):
    """Base of bandits over categories: a category by the softmax of its value, then any of its candidates.

    A softmax over the categories that are among the candidates; each shares its probability evenly between them, so
    drawing in proportion to the score draws a category first.
    """

    needs = ("category",)
    categories: Categories
    temperature: float
    window = 1

    def use_metadata(self, name: str, values: Sequence[Any]) -> None:
        """Index the categories."""
        self.categories = Categories(values, self.window)

    def values(self) -> Floats:
        """Value of every category, shape (categories,)."""
        raise NotImplementedError

    def score(self, rows: Rows) -> Floats:
        """Probability of each candidate."""
        if not len(rows):
            return np.empty(0)
        present, inverse, counts = np.unique(self.categories.codes[rows], return_inverse=True, return_counts=True)
        return (chooser.softmax(self.values()[present], self.temperature) / counts)[inverse]

    def choose(self, scores: Floats, k: int) -> NDArray[np.int64]:
        """In proportion to the score, without replacement."""
        return chooser.sample(scores, k, self.rng)

    def estimators(self) -> dict[str, Categories]:
        """The categories' values; categories that are not drawn keep theirs."""
        return {"categories": self.categories} if self._metadata else {}


@dataclass(frozen=True, kw_only=True)
class SecOptions:
    """Switches of SEC.

    Attributes:
        alpha: Weight of the newest group in a category's value. Default 0.5, the authors'.
        temperature: Of the softmax over categories. Default 0.5, the middle of the authors' 0.2 to 1.
    """

    alpha: float = 0.5
    temperature: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1 or not self.temperature > 0:
            raise ConfigError(
                f"alpha is {self.alpha}, temperature {self.temperature}; they must lie in (0, 1] and above 0."
            )


class Sec(_CategoryBandit):
    """Self-evolving curriculum (Chen et al. 2025, arXiv 2505.14970): Q <- (1 - alpha) Q + alpha mean |advantage|.

    Values move group by group instead of once per batch. Only the category that was rolled out moves.
    """

    name = "sec"
    Options = SecOptions
    options: SecOptions

    def __init__(self, ids: Sequence[str] | range, config: SelectorConfig, options: SecOptions | None = None) -> None:
        super().__init__(ids, config, options)
        self.temperature = self.options.temperature

    def values(self) -> Floats:
        """Q of every category."""
        return self.categories.means()

    def observe(self, row: int, group: Group) -> None:
        """Move the value of the group's category."""
        category = int(self.categories.codes[row])
        old, alpha = float(self.categories.window[category, 0]), self.options.alpha
        self.categories.observe(category, (1 - alpha) * old + alpha * group.advantage)


@dataclass(frozen=True, kw_only=True)
class DumpOptions:
    """Switches of DUMP; the defaults are the authors'.

    Attributes:
        temperature: Of the softmax over categories.
        window: Groups per category whose mean is its value.
        bonus: Weight of the count bonus.
    """

    temperature: float = 0.1
    window: int = 300
    bonus: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0 or self.window < 1 or not self.bonus >= 0:
            raise ConfigError(
                f"temperature is {self.temperature}, window {self.window}, bonus {self.bonus}; "
                "they must be above 0, at least 1, and at least 0."
            )


class Dump(_CategoryBandit):
    """DUMP (Wang et al. 2025, arXiv 2504.09710): mean |advantage| of a category + sqrt(2 ln(N + 1) / (n + 1)).

    n counts the category's groups, N all of them; both and the window count groups, where the authors count samples.
    Told with training rewards only.
    """

    name = "dump"
    Options = DumpOptions
    options: DumpOptions

    def __init__(self, ids: Sequence[str] | range, config: SelectorConfig, options: DumpOptions | None = None) -> None:
        super().__init__(ids, config, options)
        self.temperature, self.window = self.options.temperature, self.options.window

    def values(self) -> Floats:
        """Upper confidence bound of every category."""
        n = self.categories.told
        return self.categories.means() + self.options.bonus * np.sqrt(2 * np.log1p(n.sum()) / (n + 1))

    def observe(self, row: int, group: Group) -> None:
        """Add the group to its category's window."""
        self.categories.observe(int(self.categories.codes[row]), group.advantage)


@dataclass(frozen=True, kw_only=True)
class AdaRftOptions:
    """Switches of AdaRFT; the defaults are the authors', on a difficulty scale of 0 to 100.

    Attributes:
        start: First target difficulty.
        step: Largest move of the target per round (their eta).
        sensitivity: Slope of the response to the reward (their alpha).
        reward: Mean reward at which the target stands still (their beta), on [0, 1].
    """

    start: float = 0.0
    step: float = 50.0
    sensitivity: float = 2.0
    reward: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 100 or not self.step > 0 or not self.sensitivity > 0 or not 0 < self.reward < 1:
            raise ConfigError(
                f"start is {self.start}, step {self.step}, sensitivity {self.sensitivity}, reward {self.reward}; "
                "start must lie in [0, 100], reward in (0, 1), the others above 0."
            )


class AdaRft(Selector):
    """AdaRFT (Shi et al. 2025, arXiv 2504.05520): the prompts nearest to a target difficulty that follows the reward.

    T <- clip(T + step tanh(sensitivity (R - reward)), 0, 100) with R the mean reward of the round. Difficulties of any
    scale are mapped linearly to 0..100. Departs in looking at a fresh candidate batch every round: the nearest prompts
    of the whole pool would be the same ones as long as the target stands still.
    """

    name = "adarft"
    Options = AdaRftOptions
    options: AdaRftOptions
    needs = ("difficulty",)

    def __init__(
        self, ids: Sequence[str] | range, config: SelectorConfig, options: AdaRftOptions | None = None
    ) -> None:
        super().__init__(ids, config, options)
        self.target = self.options.start
        self._rates = np.zeros(2)  # sum and number of the group rates since the target moved

    def use_metadata(self, name: str, values: Sequence[Any]) -> None:
        """Map difficulties to 0..100.

        Raises:
            ConfigError: One is not a finite number.
        """
        try:
            given = np.array([float(value) for value in values])
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"A difficulty is not a number ({error}). Give every problem one; higher is harder."
            ) from None
        if not np.isfinite(given).all():
            raise ConfigError("A difficulty is NaN or infinite. Give every problem a finite number; higher is harder.")
        spread = given.max() - given.min()
        self.difficulty = ((given - given.min()) * (100 / spread) if spread else np.zeros(len(given))).astype(
            np.float32
        )

    def ask(self, exclude: Collection[int] = ()) -> list[Pick]:
        """Move the target by the round just told, then choose."""
        total, groups = self._rates
        if groups:
            o = self.options
            move = o.step * np.tanh(o.sensitivity * (total / groups - o.reward))
            self.target = float(np.clip(self.target + move, 0, 100))
            self._rates[:] = 0
        return super().ask(exclude)

    def score(self, rows: Rows) -> Floats:
        """Minus the distance to the target."""
        return -np.abs(self.difficulty[rows].astype(np.float64) - self.target)

    def observe(self, row: int, group: Group) -> None:
        """Add the group to the round's mean reward."""
        self._rates += (group.rate, 1)

    def metrics(self) -> dict[str, float]:
        """Adds the target difficulty."""
        return super().metrics() | {"target_difficulty": self.target}

    def state_dict(self) -> dict[str, Any]:
        """Adds the target."""
        return super().state_dict() | {"target": self.target, "rates": self._rates.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore."""
        super().load_state_dict(state)
        self.target, self._rates = float(state["target"]), np.asarray(state["rates"], np.float64).copy()
