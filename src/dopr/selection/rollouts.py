"""How many rollouts a chosen prompt gets: decided while they come in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Review:
    """Verdict on a prompt whose first rollouts are in.

    Attributes:
        action: ``keep`` the group for the update, ``drop`` it (its rollouts count as spent), or roll out ``more``.
        rollouts: With ``more``: how many further rollouts; 0 otherwise.
        search: Whether these are to repeat nothing that has failed in the group (``dopr.train.untried``).
        base: Whether they are to come from the policy as it was before training, where that can be had.
    """

    action: Literal["keep", "drop", "more"]
    rollouts: int = 0
    search: bool = False
    base: bool = False


KEEP = Review("keep")
DROP = Review("drop")


def verified_from(top: float) -> float:
    """The total reward from which a rollout counts as verified if ``top`` is right: sums of weights may differ in their last bits."""
    return top - 1e-6 * abs(top)


def scorable_rewards(rewards: Sequence[float | None]) -> list[float]:
    """The rewards that are known and finite, in order."""
    return [r for r in rewards if r is not None and math.isfinite(r)]


def is_mixed(rewards: Sequence[float | None]) -> bool:
    """Whether the scorable rewards differ: the condition for a non-zero group-relative advantage."""
    scorable = scorable_rewards(rewards)
    return any(r != scorable[0] for r in scorable)


@dataclass(frozen=True, kw_only=True, slots=True)
class SequentialRollouts:
    """Roll out in chunks of ``chunk`` and stop at the first mixed group.

    A prompt whose rollouts all fail goes on up to ``wrong_cap`` rollouts (a rare first success is worth waiting for);
    one whose rollouts all succeed up to ``right_cap`` only (it has little left to teach). ``wrong_cap = right_cap =
    chunk`` is the plain fixed-size group.

    Attributes:
        chunk: Rollouts per request. Caps are met in whole chunks: with chunks of 3 and a cap of 8 a group ends at 6.
        wrong_cap: Most rollouts of an all-wrong group.
        right_cap: Most rollouts of an all-right group.
    """

    chunk: int
    wrong_cap: int
    right_cap: int

    def review(self, rewards: Sequence[float | None], top: float = 1.0) -> Review:
        """Go on or stop, from all rewards of the prompt so far (``None`` = unscorable); ``top`` or above is right."""
        scorable = scorable_rewards(rewards)
        if not scorable or is_mixed(rewards):
            return KEEP
        cap = self.right_cap if scorable[0] >= top else self.wrong_cap
        return Review("more", self.chunk) if len(rewards) + self.chunk <= cap else KEEP
