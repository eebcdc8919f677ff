"""How often each prompt was solved as a policy trained: from one of our runs, or from a published per-prompt trace. NumPy only."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.errors import RunError, half_pair
from dopr.runlog import EVENTS, read_events

_MAX_GROUP = 64  # largest group size tried when it has to be read off the accuracies
_USUAL_GROUP = 8  # where none of these explains them


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One group of one prompt.

    Attributes:
        when: Time of the visit, 0 at the trace's start and 1 at its end.
        rate: Success rate of the group, in [0, 1].
        rollouts: Its rollouts; 0 = not known.
        disagreement: Chance that two of its rollouts answered differently; ``None`` = not known.
    """

    when: float
    rate: float
    rollouts: int = 0
    disagreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The visits of every prompt, in order.

    Attributes:
        source: Where it came from.
        visits: Per prompt id, at least one visit each.
        group_size: Rollouts per group: the usual number in a run, the common denominator in a published trace.
        categories: Category of each prompt where known, else empty.
        fits: Whether every rate of a published trace is a number of successes out of ``group_size``.
    """

    source: str
    visits: dict[str, list[Visit]]
    group_size: int
    categories: dict[str, str]
    fits: bool = True

    @property
    def ids(self) -> list[str]:
        """Prompt ids in the order of the file."""
        return list(self.visits)

    def rates(self, times: int) -> NDArray[np.float64]:
        """Success rate of every prompt at ``times`` moments, shape (times, prompts): that of the visit nearest in time."""
        return self._nearest(times, [[v.rate for v in visits] for visits in self.visits.values()])

    def groups(self, times: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Successes and rollouts of the group nearest in time, each of shape (times, prompts).

        A visit of unknown size counts as one of ``group_size``. Where that does not fit its rate, the nearest number of
        successes stands for it that keeps a mixed group mixed.
        """
        sizes = [[v.rollouts or self.group_size for v in visits] for visits in self.visits.values()]
        right = [
            [_successes(v.rate, n) for v, n in zip(visits, own, strict=True)]
            for visits, own in zip(self.visits.values(), sizes, strict=True)
        ]
        return self._nearest(times, right).astype(np.int64), self._nearest(times, sizes).astype(np.int64)

    def _nearest(self, times: int, values: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        """``values`` has one number per visit of every prompt."""
        out = np.empty((times, len(self.visits)))
        moments = (np.arange(times) + 0.5) / times
        for column, (visits, known) in enumerate(zip(self.visits.values(), values, strict=True)):
            when = np.array([v.when for v in visits])
            out[:, column] = np.array(known)[np.abs(when[None, :] - moments[:, None]).argmin(axis=1)]
        return out

    @property
    def longest(self) -> int:
        """Most visits of any prompt."""
        return max(map(len, self.visits.values()))


def _successes(rate: float, rollouts: int) -> int:
    nearest = round(rate * rollouts)
    return min(max(nearest, 1), rollouts - 1) if 0 < rate < 1 and rollouts > 1 else nearest


def read_trace(source: str | Path) -> Trace:
    """A trace from a run directory, or from a JSON file ``{prompt id: [accuracy of each visit, ...]}``.

    Raises:
        RunError: Neither, or with values that are no accuracies.
    """
    path = Path(source)
    if path.is_dir() or path.name == EVENTS:
        return _from_run(path if path.is_dir() else path.parent)
    if not path.exists():
        raise RunError(f"There is no {path}. Give a run directory, or a JSON file {{id: [accuracy per visit]}}.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read as JSON ({error}).") from None
    return _from_published(stored, path)


def _from_published(stored: Any, path: Path) -> Trace:
    if not isinstance(stored, dict) or not stored:
        raise RunError(
            f"{path} holds no trace: it must be a JSON object {{id: [accuracy per visit]}}, and not be empty."
        )
    visits: dict[str, list[Visit]] = {}
    for prompt, series in stored.items():
        if half_pair(prompt):
            raise RunError(
                f"{path}, prompt {prompt!r}: the id holds half of a surrogate pair, which cannot be written as UTF-8. Correct it."
            )
        if not isinstance(series, list) or not all(_is_accuracy(value) for value in series):
            raise RunError(
                f"{path}, prompt {prompt!r}: a trace holds a list of accuracies between 0 and 1 per prompt; got "
                f"{str(series)[:80]}."
            )
        if series:
            visits[str(prompt)] = [
                Visit(when=(i + 0.5) / len(series), rate=float(rate)) for i, rate in enumerate(series)
            ]
    if not visits:
        raise RunError(f"{path} holds prompts but no visit of any.")
    rates = np.array([v.rate for series in visits.values() for v in series])
    size = _denominator(rates)
    return Trace(
        source=str(path), visits=visits, group_size=size or _USUAL_GROUP, categories={}, fits=size is not None
    )  # fmt: skip


def _is_accuracy(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def _denominator(rates: NDArray[np.float64]) -> int | None:
    """Smallest group size that explains every accuracy; ``None`` where none does."""
    for size in range(2, _MAX_GROUP + 1):
        if np.allclose(rates * size, np.round(rates * size), atol=1e-3):
            return size
    return None


def _from_run(directory: Path) -> Trace:
    rounds = [e for e in read_events(directory) if e["kind"] == "round"]
    visits: dict[str, list[Visit]] = {}
    categories: dict[str, str] = {}
    sizes: list[int] = []
    try:
        last = max((int(e["round"]) for e in rounds), default=0)
        for event in rounds:
            for pick in event["picks"]:
                if pick["success"] is None:
                    continue
                scored = sum(r is not None for r in pick["rewards"])
                visit = Visit(
                    when=(event["round"] - 0.5) / last, rate=float(pick["success"]), rollouts=scored,
                    disagreement=pick.get("disagreement"),
                )  # fmt: skip
                visits.setdefault(str(pick["id"]), []).append(visit)
                sizes.append(scored)
                if pick.get("skill") is not None:
                    categories[str(pick["id"])] = str(pick["skill"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{directory / EVENTS} lacks what a round event must have ({error!r}); it was damaged."
        ) from None
    if not visits:
        raise RunError(f"The run in {directory} has no scored group yet, so there is nothing to replay or rank.")
    size = int(np.bincount(sizes).argmax())
    return Trace(
        source=str(directory), visits=visits, group_size=max(2, size),
        categories=categories if set(categories) == set(visits) else {},
    )  # fmt: skip
