"""A small memory of verified successes, replayed as positive examples.

Rollouts that the verifier accepted are the expensive product of RLVR; adding a few of them to every update costs no
rollouts, and in our experiments also prevents the policy from collapsing (docs/algorithm.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats


@dataclass(frozen=True, slots=True)
class Success:
    """One accepted rollout as token ids.

    Attributes:
        prompt_id: The prompt it answers.
        prompt: Prompt token ids, shape (prompt length,).
        completion: Completion token ids including the end token, shape (completion length,).
        start: Its first token that is learned from; the tokens before are only read.
    """

    prompt_id: str
    prompt: NDArray[np.int64]
    completion: NDArray[np.int64]
    start: int = 0


class SuccessMemory:
    """At most ``capacity`` successes, each filed under a key: a cluster of prompts, or one key for all.

    A full memory drops the oldest success of its largest key, so that what is rare stays.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: list[tuple[int, Success]] = []

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> list[Success]:
        """All of them, oldest first."""
        return [success for _, success in self._items]

    def count(self, key: int) -> int:
        """Successes under ``key``."""
        return sum(k == key for k, _ in self._items)

    def add(self, success: Success, key: int = 0) -> None:
        """Remember one success."""
        self._items.append((key, success))
        if len(self._items) > self.capacity:
            sizes = Counter(k for k, _ in self._items)
            largest = max(sizes.values())
            del self._items[next(i for i, (k, _) in enumerate(self._items) if sizes[k] == largest)]

    def draw(
        self, n: int, rng: np.random.Generator, weigh: Callable[[Sequence[int]], Floats] | None = None
    ) -> list[Success]:
        """``min(n, len(self))`` distinct successes.

        Args:
            n: How many.
            rng: Source of the draws.
            weigh: Positive weights of keys, shape (keys,): how often each key is drawn, whatever it holds; default: every
                success alike.
        """
        keys = np.array([key for key, _ in self._items], np.int64)
        weights = None
        if weigh is not None and len(keys):
            distinct, inverse, sizes = np.unique(keys, return_inverse=True, return_counts=True)
            weights = (weigh(distinct.tolist()) / sizes)[inverse]
            weights = weights / weights.sum()
        chosen = rng.choice(len(keys), min(n, len(keys)), replace=False, p=weights)
        return [self._items[i][1] for i in chosen]

    def state_dict(self) -> dict[str, Any]:
        """Flat arrays: ids, keys, starts, token ids end to end and the lengths that cut them."""
        tokens = [t for _, s in self._items for t in (s.prompt, s.completion)]
        return {
            "ids": [s.prompt_id for _, s in self._items],
            "keys": np.array([key for key, _ in self._items], np.int64),
            "starts": np.array([s.start for _, s in self._items], np.int64),
            "tokens": np.concatenate(tokens) if tokens else np.empty(0, np.int64),
            "lengths": np.array([len(t) for t in tokens], np.int64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the content by that of ``state_dict``."""
        parts = np.split(np.asarray(state["tokens"], np.int64), np.cumsum(state["lengths"])[:-1])
        self._items = [
            (int(key), Success(str(i), parts[2 * n], parts[2 * n + 1], int(start)))
            for n, (i, key, start) in enumerate(zip(state["ids"], state["keys"], state["starts"], strict=True))
        ]
