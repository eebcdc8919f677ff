"""Several rewards as one verdict, for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dopr.tasks.rewards import RewardFunction


class CombinedReward:
    """Weighted mean of reward functions in TRL's signature: 1 means that each gave its full 1.

    Functions with weight 0 or less take no part. Unscorable for all = ``None``.
    """

    def __init__(self, rewards: Sequence[RewardFunction], weights: Sequence[float] = ()) -> None:
        pairs = zip(rewards, weights or [1.0] * len(rewards), strict=True)
        self._parts = [(reward, weight) for reward, weight in pairs if weight > 0]
        self.__name__ = "+".join(reward.__name__ for reward, _ in self._parts)
        extract = next((r.extract for r, _ in self._parts if getattr(r, "extract", None)), None)
        self.extract = extract or str.strip

    def __call__(self, **columns: Any) -> list[float | None]:
        """Rewards of shape (len(completions),)."""
        total = sum(weight for _, weight in self._parts)
        scored = [(reward(**columns), weight) for reward, weight in self._parts]
        out: list[float | None] = []
        for i in range(len(columns["completions"])):
            known = [(values[i], weight) for values, weight in scored if values[i] is not None]
            out.append(sum(float(v) * w for v, w in known if v is not None) / total if known else None)
        return out
