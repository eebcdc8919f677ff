"""What strategies estimate per prompt or per category, beside the full ``History``: a few bytes per row, O(1) updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dopr.selection.history import Floats, Group, Rows


class Estimator(Protocol):
    """State that a selector saves and restores.

    Attributes:
        per_prompt: Whether its arrays have one entry per prompt of the pool, to be moved along with the prompt's id.
    """

    per_prompt: bool

    def state_dict(self) -> dict[str, Any]:
        """Plain values and arrays."""
        ...

    def load_state_dict(self, state: dict[str, Any], rows: Rows | None = None) -> None:
        """Restore; ``rows`` says where each stored row lives now, -1 = gone."""
        ...


class _PromptArrays:
    """Base of estimators that are nothing but float32 arrays with one entry per prompt."""

    per_prompt = True

    def __init__(self, size: int, **initial: float) -> None:
        self._names = tuple(initial)
        for name, value in initial.items():
            setattr(self, name, np.full(size, value, np.float32))

    def state_dict(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the arrays by name."""
        return {name: getattr(self, name).copy() for name in self._names}

    def load_state_dict(self, state: dict[str, Any], rows: Rows | None = None) -> None:
        """Restore; prompts not in ``rows`` keep their initial values."""
        for name in self._names:
            mine, stored = getattr(self, name), np.asarray(state[name])
            where = np.arange(len(stored)) if rows is None else rows
            mine[where[where >= 0]] = stored[where >= 0]


class BetaPosterior(_PromptArrays):
    """A discounted Beta posterior of the success rate of each prompt: 8 bytes per prompt.

    A visit with s successes and f failures (rewards scaled to [0, 1] count as fractions of both) moves

        a <- keep a + (1 - keep) anchor + s,      b <- keep b + (1 - keep) anchor + f

    Only the visited prompt moves.

    Args:
        size: Number of prompts.
        prior: Initial a = b, above 0.
        keep: Discount of the past per visit, in [0, 1].
        per_rollout: Discount by ``keep`` once per rollout instead of once per visit.
        anchored: Discount towards the prior instead of towards nothing.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]

    def __init__(
        self, size: int, *, prior: float = 1.0, keep: float = 1.0, per_rollout: bool = False, anchored: bool = True
    ) -> None:
        super().__init__(size, a=prior, b=prior)
        self.prior, self.keep, self.per_rollout, self.anchored = prior, keep, per_rollout, anchored

    def observe(self, row: int, group: Group) -> None:
        """Add one group."""
        keep = self.keep**group.n if self.per_rollout else self.keep
        back = (1 - keep) * self.prior if self.anchored else 0.0
        self.a[row] = keep * self.a[row] + back + group.n * group.rate
        self.b[row] = keep * self.b[row] + back + group.n * (1 - group.rate)

    def mean(self, rows: Rows) -> Floats:
        """Posterior means, shape (len(rows),)."""
        a, b = self.a[rows].astype(np.float64), self.b[rows].astype(np.float64)
        return a / (a + b)

    def draw(self, rows: Rows, rng: np.random.Generator) -> Floats:
        """One posterior draw each (Thompson sampling), shape (len(rows),)."""
        # With full forgetting a constant group leaves one parameter at its anchor or, unanchored, near 0.
        return rng.beta(np.maximum(self.a[rows], 1e-6), np.maximum(self.b[rows], 1e-6))

    def expected_variance(self, rows: Rows) -> Floats:
        """E[p (1 - p)] = a b / ((a + b) (a + b + 1)), shape (len(rows),)."""
        a, b = self.a[rows].astype(np.float64), self.b[rows].astype(np.float64)
        return a * b / ((a + b) * (a + b + 1))


class RunningMean(_PromptArrays):
    """Exponentially weighted mean of one number per prompt, ``initial`` before any visit: 4 bytes per prompt.

    Args:
        size: Number of prompts.
        initial: Value of a prompt never seen; the first visit replaces it.
        step: Weight of the newest value, in (0, 1].
    """

    value: NDArray[np.float32]
    seen: NDArray[np.float32]

    def __init__(self, size: int, *, initial: float, step: float) -> None:
        super().__init__(size, value=initial, seen=0.0)
        self.step = step

    def observe(self, row: int, value: float) -> None:
        """Add one value."""
        self.value[row] += (self.step if self.seen[row] else 1.0) * (value - self.value[row])
        self.seen[row] = 1


class Categories:
    """The category of every prompt, and a window of the latest values of each category.

    Categories are kept by name, in sorted order, so that nothing depends on the order of the pool.

    Args:
        names: Category of each prompt; anything, compared as text.
        window: Values remembered per category.
    """

    per_prompt = False

    def __init__(self, names: Sequence[Any], window: int = 1) -> None:
        texts = [str(name) for name in names]
        self.names = sorted(set(texts))
        code = {name: i for i, name in enumerate(self.names)}
        self.codes = np.array([code[text] for text in texts], np.int32)
        self.window = np.zeros((len(self.names), window), np.float32)
        self.told = np.zeros(len(self.names), np.int64)

    def observe(self, category: int, value: float) -> None:
        """Add one value to a category."""
        self.window[category, self.told[category] % self.window.shape[1]] = value
        self.told[category] += 1

    def means(self) -> Floats:
        """Mean of each category's window, 0 before its first value; shape (categories,)."""
        filled = np.minimum(self.told, self.window.shape[1])
        return self.window.sum(axis=1, dtype=np.float64) / np.maximum(filled, 1)

    def state_dict(self) -> dict[str, Any]:
        """Names, windows and counts."""
        return {"names": list(self.names), "window": self.window.copy(), "told": self.told.copy()}

    def load_state_dict(self, state: dict[str, Any], rows: Rows | None = None) -> None:
        """Restore the categories that still exist, by name."""
        for i, name in enumerate(state["names"]):
            if name in self.names:
                mine = self.names.index(name)
                self.window[mine] = np.asarray(state["window"])[i]
                self.told[mine] = int(state["told"][i])
