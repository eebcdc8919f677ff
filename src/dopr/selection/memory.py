"""A small memory of verified successes, replayed as positive examples.

Rollouts that the verifier accepted are the expensive product of RLVR; adding a few of the latest ones to every update
costs no rollouts, and in our experiments also prevents the policy from collapsing (docs/algorithm.md).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Success:
    """One accepted rollout as token ids.

    Attributes:
        prompt_id: The prompt it answers.
        prompt: Prompt token ids, shape (prompt length,).
        completion: Completion token ids including the end token, shape (completion length,).
    """

    prompt_id: str
    prompt: NDArray[np.int64]
    completion: NDArray[np.int64]


class SuccessMemory:
    """The last ``capacity`` successes; ``draw`` takes distinct ones uniformly."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[Success] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, success: Success) -> None:
        """Remember one success; the oldest is dropped when the memory is full."""
        self._items.append(success)

    def draw(self, n: int, rng: np.random.Generator) -> list[Success]:
        """``min(n, len(self))`` distinct successes."""
        chosen = rng.choice(len(self._items), min(n, len(self._items)), replace=False)
        return [self._items[i] for i in chosen]

    def state_dict(self) -> dict[str, Any]:
        """Flat arrays: ids, token ids end to end, and the lengths that cut them."""
        tokens = [t for s in self._items for t in (s.prompt, s.completion)]
        return {
            "ids": [s.prompt_id for s in self._items],
            "tokens": np.concatenate(tokens) if tokens else np.empty(0, np.int64),
            "lengths": np.array([len(t) for t in tokens], np.int64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the content by that of ``state_dict``."""
        parts = np.split(np.asarray(state["tokens"], np.int64), np.cumsum(state["lengths"])[:-1])
        self._items.clear()
        for i, prompt_id in enumerate(state["ids"]):
            self._items.append(Success(str(prompt_id), parts[2 * i], parts[2 * i + 1]))
