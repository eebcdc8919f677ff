"""The controls: batch GRPO, one random prompt per update, and one fixed prompt. No claim for a rule means anything without them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError
from dopr.selection.history import Floats, Rows
from dopr.selection.selector import Selector
from dopr.selection.settings import Pick, SelectorConfig


class Uniform(Selector):
    """Plain batch GRPO (Shao et al. 2024): every round takes the next prompts of a shuffled epoch."""

    name = "uniform"
    takes_all_candidates = True
    default_prompts_per_round = 8

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


@dataclass(frozen=True, kw_only=True)
class OneShotOptions:
    """Which prompts to train on.

    Attributes:
        prompts: Their ids, such as the first of ``dopr rank``; fewer than a round needs are filled up at random.
    """

    prompts: tuple[str, ...] = ()


class OneShot(Selector):
    """The same prompt (or few) in every round: 1-shot RLVR (Wang et al. 2025, arXiv 2504.20571).

    There the prompt is the one whose accuracy varied most over an earlier full run (``dopr rank --by std``). Without
    such a run, and so without ``prompts``, one is drawn at random: a control, not the published method.
    """

    name = "one-shot"
    Options = OneShotOptions

    def __init__(
        self, ids: Sequence[str] | range, config: SelectorConfig, options: OneShotOptions | None = None
    ) -> None:
        super().__init__(ids, config, options)
        named = [self._row(str(prompt)) for prompt in self.options.prompts]
        if len(set(named)) < len(named):
            raise ConfigError(f"prompts names a prompt twice: {', '.join(self.options.prompts)}. Name each once.")
        if len(named) > config.prompts_per_round:
            raise ConfigError(
                f"prompts names {len(named)} prompts, but a round has {config.prompts_per_round}. Set --prompts-per-round to {len(named)}."
            )
        others = (int(row) for row in self.rng.permutation(len(ids)) if row not in named)
        self.fixed = np.array([*named, *(next(others) for _ in range(config.prompts_per_round - len(named)))], np.int64)

    def ask(self, exclude: Collection[int] = ()) -> list[Pick]:
        """The fixed prompts."""
        self.round += 1
        self.candidate_rows = self.fixed[~np.isin(self.fixed, list(exclude))]
        self.candidate_scores = self.score(self.candidate_rows)
        return [Pick(self._id(int(row)), int(row), self.rollouts.chunk, 1.0) for row in self.candidate_rows]

    def score(self, rows: Rows) -> Floats:
        """Equal scores."""
        return np.ones(len(rows))

    def state_dict(self) -> dict[str, Any]:
        """Adds the ids of the prompts."""
        return super().state_dict() | {"fixed": [self._id(int(row)) for row in self.fixed]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore; the prompts must still be in the pool."""
        super().load_state_dict(state)
        self.fixed = np.array([self._row(prompt) for prompt in state["fixed"]], np.int64)
