"""The face every selection strategy shares: ask, review, tell.

    picks = selector.ask()                              # before rollouts: which prompts, how many rollouts
    selector.review(prompt_id, rewards_so_far)          # while they come in: keep, drop or more
    selector.tell(prompt_id, rewards, answers)          # after: every reward, None where unscorable
    selector.remember(success); selector.replay()       # the update hook: verified successes to learn from again

A selector owns its random generator and its round counter; ``state_dict`` holds all of it, so that a restored selector
makes the same choices. It imports NumPy and the standard library only.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError
from dopr.selection import chooser
from dopr.selection.estimators import Estimator
from dopr.selection.history import Floats, Group, RewardScale, Rows
from dopr.selection.memory import Success, SuccessMemory
from dopr.selection.plan import CandidatePlan
from dopr.selection.rollouts import Review, SequentialRollouts, verified_from
from dopr.selection.settings import NoOptions, Pick, SelectorConfig

STATE_VERSION = 11


class Selector(ABC):
    """Base of all strategies.

    A strategy defines ``score``, and where it differs from the defaults ``choose``, ``allocate``, ``review``, ``observe``
    and ``estimators``; docs/strategies.md has a complete example.

    Args:
        ids: Prompt ids, unique; strings, or a ``range`` for pools too large to name.
        config: Settings shared by all strategies.
        options: The strategy's own switches, an instance of its ``Options``; default: all at their defaults.

    Raises:
        ConfigError: Empty pool, duplicate ids, or a candidate batch or round larger than the pool.
    """

    name: str
    #: Frozen dataclass of the strategy's own switches.
    Options: type[Any] = NoOptions
    #: Metadata without which the strategy cannot run: ``category``, ``difficulty`` (see ``set_metadata``).
    needs: tuple[str, ...] = ()
    #: Prompts per round where the user names none: 1, or what the method needs to make sense.
    default_prompts_per_round = 1
    #: Whether every round takes its whole candidate batch (batch training) instead of choosing from it.
    takes_all_candidates = False
    #: Whether the strategy shares evidence through prompt features (see ``set_features``).
    uses_features = False
    #: How often a round asks again for prompts to replace dropped ones.
    max_refills = 0
    #: Defaults where the config says ``None``: rollouts at a time (0 = the group size), replayed rows, updates from them alone.
    default_chunk = 0
    default_replay = 0
    default_replay_updates = 0

    def __init__(self, ids: Sequence[str] | range, config: SelectorConfig, options: Any = None) -> None:
        self.ids, self.config = ids, config
        self.options: Any = self.Options() if options is None else options
        k = config.prompts_per_round
        candidates = k if self.takes_all_candidates else config.candidates or min(128, len(ids))
        for what, flag, size in (("round", "--prompts-per-round", k), ("candidate batch", "--candidates", candidates)):
            if size > len(ids):
                raise ConfigError(
                    f"A {what} of {size} prompts cannot be drawn from a pool of {len(ids)}. "
                    f"Set {flag} to at most {len(ids)}, or bring more problems."
                )
        if candidates < k:
            raise ConfigError(f"{k} prompts per round cannot come from {candidates} candidates; raise --candidates.")
        self._row_of = {} if isinstance(ids, range) else {prompt_id: row for row, prompt_id in enumerate(ids)}
        if not isinstance(ids, range) and len(self._row_of) != len(ids):
            raise ConfigError("Prompt ids must be unique: a history is kept for each.")
        self.plan = CandidatePlan(len(ids), candidates, config.seed, exact=self.takes_all_candidates, least=k)
        self.rng = np.random.default_rng([config.seed, 0xD0])
        self.round = 0
        self.scale = RewardScale()
        self.success: float | None = None  # total reward from which a rollout is verified; None = the top of the scale
        self.rollouts = self.rollouts_of(config)
        self.n_replay = self.default_replay if config.replay is None else config.replay
        updates = config.replay_updates
        self.replay_updates = 0 if not self.n_replay else self.default_replay_updates if updates is None else updates
        self.memory = SuccessMemory(config.memory)
        self._metadata: dict[str, Sequence[Any]] = {}
        self.candidate_rows: Rows = np.empty(0, np.int64)
        self.candidate_scores: Floats = np.empty(0)

    @classmethod
    def rollouts_of(cls, config: SelectorConfig) -> SequentialRollouts:
        """The chunk and the caps of this strategy's groups.

        Raises:
            ConfigError: A cap below the chunk that a group begins with.
        """
        chunk = config.chunk or min(cls.default_chunk or config.group_size, config.group_size)
        for name, cap in (("wrong_cap", config.wrong_cap), ("right_cap", config.right_cap)):
            if cap is not None and cap < chunk:
                raise ConfigError(
                    f"{name} is {cap}, below the chunk of {chunk} rollouts that a group begins with; make it at least that."
                )
        return SequentialRollouts(
            chunk=chunk,
            wrong_cap=config.wrong_cap or max(config.group_size, chunk),
            right_cap=config.right_cap or chunk,
        )

    @property
    def searches_base(self) -> bool:
        """Whether verdicts may ask for rollouts of the policy as it was before training (``Review.base``)."""
        return False

    # -- the four verbs ------------------------------------------------------------------------------------------

    def ask(self, exclude: Collection[int] = ()) -> list[Pick]:
        """Choose the prompts of the next round. Cost O(candidates); no rollouts, no torch.

        Args:
            exclude: Rows not to choose: a refill must not repeat a prompt of its round. The answer may be shorter then.

        Raises:
            ConfigError: The strategy needs metadata that was not given.
        """
        self.check_metadata()
        rows = self.plan.batch(self.round)
        if exclude:
            rows = rows[~np.isin(rows, list(exclude))]
        self.candidate_rows, self.candidate_scores = rows, self.score(rows)
        chosen = self.choose(self.candidate_scores, min(self.config.prompts_per_round, len(rows)))
        picked = rows[chosen]
        predicted = self.predict(picked)
        self.round += 1
        return [
            Pick(self._id(int(row)), int(row), int(n), float(score), None if predicted is None else float(predicted[i]))
            for i, (row, n, score) in enumerate(
                zip(picked, self.allocate(picked), self.candidate_scores[chosen], strict=True)
            )
        ]

    def review(self, prompt_id: str, rewards: Sequence[float | None]) -> Review:
        """Judge a prompt from all its rewards so far; the default follows the sequential rollout caps."""
        return self.rollouts.review(rewards, self.verified_from)

    def tell(
        self, prompt_id: str, rewards: Sequence[float | None], answers: Sequence[str] | None = None
    ) -> Group | None:
        """Learn from a finished group.

        Args:
            prompt_id: The prompt.
            rewards: All its rewards, ``None`` where unscorable.
            answers: The final answer of every rollout as comparable text, where known.

        Returns:
            The group's summary, or ``None`` if nothing in it could be scored (the history is left untouched then).
        """
        group = self.scale.group(rewards, answers)
        if group is not None:
            self.observe(self._row(prompt_id), group)
        return group

    def tell_entropy(self, prompt_id: str, entropy: float) -> None:
        """Learn the mean token entropy (nats) of the prompt's last group; known only after the update's forward."""

    # -- the update hook -----------------------------------------------------------------------------------------

    @property
    def verified_from(self) -> float:
        """The total reward from which a rollout counts as verified."""
        return verified_from(self.scale.high if self.success is None else self.success)

    def is_success(self, reward: float | None) -> bool:
        """Whether a rollout counts as verified: it earned the most that the reward scale holds, or ``success`` where that is set."""
        return reward is not None and self.verified_from <= reward < math.inf

    def remember(self, success: Success) -> None:
        """Offer a rollout that the verifier accepted; kept only if this selector replays."""
        if self.n_replay:
            self.memory.add(success, self.memory_key(success))

    def replay(self) -> list[Success]:
        """Verified successes to add to this update as positive examples."""
        return self.memory.draw(self.n_replay, self.rng, self.weigh_keys) if self.n_replay else []

    def memory_key(self, success: Success) -> int:
        """What the success is filed under; by default all under one key."""
        return 0

    def weigh_keys(self, keys: Sequence[int]) -> Floats:
        """How often each key is replayed, positive, shape (len(keys),); equal by default."""
        return np.ones(len(keys))

    # -- what a strategy defines ---------------------------------------------------------------------------------

    @abstractmethod
    def score(self, rows: Rows) -> Floats:
        """Acquisition scores of candidate ``rows``, shape (len(rows),), finite; higher is better."""

    def choose(self, scores: Floats, k: int) -> NDArray[np.int64]:
        """Positions of ``k`` distinct candidates; by default those with the highest scores."""
        return chooser.argmax(scores, k, self.rng)

    def allocate(self, rows: Rows) -> Sequence[int] | NDArray[np.int64]:
        """Rollouts to start with for each chosen row; by default one chunk."""
        return [self.rollouts.chunk] * len(rows)

    def predict(self, rows: Rows) -> Floats | None:
        """Expected success rate of ``rows``, shape (len(rows),); ``None`` where the strategy has no such estimate."""
        return None

    def observe(self, row: int, group: Group) -> None:
        """Update the strategy's own estimates; nothing by default."""

    def set_features(self, features: NDArray[np.floating] | None, labels: NDArray[np.int32] | None = None) -> None:
        """Give prompt features of shape (N, D), or ready cluster labels of shape (N,); ignored by default."""

    def set_metadata(self, metadata: Mapping[str, Sequence[Any]]) -> None:
        """Give what is known of the prompts beforehand, by name, one value per row of the pool.

        ``category`` holds any text, ``difficulty`` numbers on any scale, higher is harder. Strategies that do not need
        a name ignore it.

        Raises:
            ConfigError: A name of another length than the pool.
        """
        for name in self.needs:
            if name in metadata:
                if len(metadata[name]) != len(self.ids):
                    raise ConfigError(
                        f"{name} has {len(metadata[name])} values for a pool of {len(self.ids)} prompts; give one each."
                    )
                self._metadata[name] = metadata[name]
                self.use_metadata(name, metadata[name])

    def check_metadata(self) -> None:
        """Raise ConfigError where the strategy needs metadata that was not given."""
        for field in self.needs:
            if field not in self._metadata:
                raise ConfigError(
                    f"Strategy {self.name!r} needs a {field} for every problem, and these problems have none. Add a column "
                    f"{field!r} to the data, or choose a strategy that learns from rewards alone, such as dopr."
                )

    def use_metadata(self, name: str, values: Sequence[Any]) -> None:
        """Take in one needed kind of metadata; called before the first choice and before any state is loaded."""

    def metrics(self) -> dict[str, float]:
        """Plain numbers for the training log."""
        return {"round": float(self.round), "memory": float(len(self.memory))}

    # -- state ---------------------------------------------------------------------------------------------------

    def estimators(self) -> Mapping[str, Estimator]:
        """What the strategy has learned, by name: all of it is saved, and restored by prompt id."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All state: plain scalars, strings, lists of strings and NumPy arrays, never pickled objects."""
        state: dict[str, Any] = {
            "version": STATE_VERSION,
            "strategy": self.name,
            "round": self.round,
            "rng": json.dumps(self.rng.bit_generator.state),
            "scale": [self.scale.low, self.scale.high],
            "pool": len(self.ids),
            "ids": None if isinstance(self.ids, range) else list(self.ids),
            "memory": self.memory.state_dict(),
        }
        state["estimators"] = {name: estimator.state_dict() for name, estimator in self.estimators().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave. Prompts are matched by id, so a shuffled or extended pool keeps its history.

        Raises:
            ConfigError: The state is of another version or strategy.
        """
        if (state.get("version"), state.get("strategy")) != (STATE_VERSION, self.name):
            raise ConfigError(
                f"This selector state is of strategy {state.get('strategy')!r}, version {state.get('version')!r}; "
                f"here runs {self.name!r}, version {STATE_VERSION}. Resume with the settings the run was started with."
            )
        self.round = int(state["round"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.scale.low, self.scale.high = map(float, state["scale"])
        self.memory.load_state_dict(state["memory"])
        rows, stored = self._stored_rows(state), state["estimators"]
        for name, estimator in self.estimators().items():
            estimator.load_state_dict(stored[name], rows if estimator.per_prompt else None)

    def _stored_rows(self, state: dict[str, Any]) -> Rows:
        """Where each stored prompt row lives now; -1 where the prompt is gone."""
        if isinstance(self.ids, range) or state["ids"] is None:
            stored = np.arange(int(state["pool"]))
            return np.where(stored < len(self.ids), stored, -1)
        return np.array([self._row_of.get(prompt_id, -1) for prompt_id in state["ids"]], np.int64)

    def _row(self, prompt_id: str) -> int:
        try:
            return self.ids.index(int(prompt_id)) if isinstance(self.ids, range) else self._row_of[prompt_id]
        except (KeyError, ValueError):
            raise ConfigError(f"Prompt id {prompt_id!r} is not in this selector's pool of {len(self.ids)}.") from None

    def _id(self, row: int) -> str:
        return str(self.ids[row])
