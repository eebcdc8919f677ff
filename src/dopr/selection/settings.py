"""What a selector is given, and what it gives: settings shared by all strategies, and picks."""

from __future__ import annotations

from dataclasses import dataclass

from dopr.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Pick:
    """One chosen prompt.

    Attributes:
        prompt_id: Its stable id.
        row: Its row number in the pool the selector was built with.
        rollouts: Rollouts to start with, at least 1; one chunk, unless the strategy screens or allocates.
        score: Its acquisition score, for the log.
        predicted: Success rate the strategy expects, in [0, 1]; ``None`` where it predicts nothing.
    """

    prompt_id: str
    row: int
    rollouts: int
    score: float
    predicted: float | None = None


@dataclass(frozen=True, kw_only=True)
class SelectorConfig:
    """What every strategy needs to know.

    Attributes:
        group_size: Rollouts per group G, at least 2.
        prompts_per_round: Prompts chosen per round k, at least 1.
        candidates: Candidate batch B; ``None`` = the smaller of 128 and the pool.
        chunk: Rollouts generated at a time, until the rewards of a group differ; ``None`` = the strategy's default.
        wrong_cap: Most rollouts of a group that keeps failing, unless it is searched; ``None`` = the strategy's default.
        right_cap: Most rollouts of a group that keeps succeeding; ``None`` = the strategy's default.
        replay: Verified successes added to each update; ``None`` = the strategy's default.
        replay_updates: Further updates per round from replayed rows alone, without rollouts; ``None`` = the strategy's
            default, and none without ``replay``.
        memory: Verified successes kept for replay.
        seed: Seed of the candidate deal and of the strategy's own draws.
    """

    group_size: int = 8
    prompts_per_round: int = 1
    candidates: int | None = None
    chunk: int | None = None
    wrong_cap: int | None = None
    right_cap: int | None = None
    replay: int | None = None
    replay_updates: int | None = None
    memory: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ConfigError(
                f"group size is {self.group_size}; a group-relative advantage needs at least 2 rollouts. "
                "Set --group-size to 2 or more (8 is usual)."
            )
        for name, least in (
            ("prompts_per_round", 1),
            ("replay", 0),
            ("replay_updates", 0),
            ("memory", 1),
            ("candidates", 1),
            ("chunk", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}.")


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Options of a strategy that has none."""
