"""Several rewards as one verdict, for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dopr.selection.rollouts import verified_from

if TYPE_CHECKING:
    from dopr.tasks.rewards import RewardFunction


class CombinedReward:
    """Weighted mean of reward functions in TRL's signature: 1 means that each gave its full 1.

    Functions with weight 0 or less take no part, nor do for a completion those that cannot score it. Unscorable for all = ``None``.

    Args:
        rewards: The functions.
        weights: Theirs; default 1 each.
        success: Weighted sum from which a completion is right: then the verdict is 1 or 0, and all functions take part.
    """

    def __init__(
        self, rewards: Sequence[RewardFunction], weights: Sequence[float] = (), success: float | None = None
    ) -> None:
        self._success = success
        pairs = zip(rewards, weights or [1.0] * len(rewards), strict=True)
        self._parts = [(reward, weight) for reward, weight in pairs if weight > 0 or (success is not None and weight)]
        self.__name__ = "+".join(reward.__name__ for reward, _ in self._parts)
        extract = next((r.extract for r, _ in self._parts if getattr(r, "extract", None)), None)
        self.extract = extract or str.strip

    def __call__(self, **columns: Any) -> list[float | None]:
        """Rewards of shape (len(completions),)."""
        scored = [(reward(**columns), weight) for reward, weight in self._parts]
        out: list[float | None] = []
        for i in range(len(columns["completions"])):
            known = [(float(value), weight) for values, weight in scored if (value := values[i]) is not None]
            total = sum(value * weight for value, weight in known)
            if not known:
                out.append(None)
            elif self._success is None:
                out.append(total / sum(weight for _, weight in known))
            else:
                out.append(float(total >= verified_from(self._success)))
        return out
