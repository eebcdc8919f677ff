"""What a run has spent, and how much it may spend."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from dopr.errors import ConfigError

_UNITS = ("rollouts", "tokens", "seconds", "updates")
#: Why a run ends that is finished.
SPENT = "budget spent"


@dataclass(slots=True)
class Spent:
    """Running totals.

    Attributes:
        rollouts: Completions generated for training, dropped and unscorable ones included.
        tokens: Tokens in them.
        seconds: Wall-clock seconds of selection, rollouts and updates; evaluation and start-up are not in it.
        updates: Optimizer steps.
        prompts: Groups rolled out (prompts, counted with repetition).
    """

    rollouts: int = 0
    tokens: int = 0
    seconds: float = 0.0
    updates: int = 0
    prompts: int = 0

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, seconds to the millisecond."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in one unit: rollouts, tokens, seconds or updates."""

    unit: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``rollouts=3000`` and the like; ``k`` and ``M`` suffixes are thousands and millions.

        Raises:
            ConfigError: Not UNIT=NUMBER with a known unit and a positive finite number.
        """
        match = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*([kM]?)\s*", text)
        if not match or match[1] not in _UNITS or not 0 < float(match[2]) < 1e300:
            raise ConfigError(
                f"Budget {text!r} is not of the form UNIT=NUMBER with UNIT one of {', '.join(_UNITS)} and a positive "
                "NUMBER, such as rollouts=3000 or seconds=600."
            )
        return cls(match[1], float(match[2]) * {"": 1, "k": 1e3, "M": 1e6}[match[3]])

    def share(self, spent: Spent) -> float:
        """Part of the budget that is spent, 1 or more when it is used up."""
        return float(getattr(spent, self.unit)) / self.limit


class Stopwatch:
    """Wall-clock seconds of training, with evaluation and other asides taken out."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._aside = 0.0
        self._before = 0.0

    def start(self, before: float = 0.0) -> None:
        """Start, if not yet started; ``before`` seconds were spent by the run this one resumes."""
        if self._started is None:
            self._started, self._before = time.perf_counter(), before

    @property
    def seconds(self) -> float:
        """Seconds so far; 0 before the start."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started - self._aside
        return self._before + running

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time spent inside the block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if self._started is not None:
                self._aside += time.perf_counter() - started
