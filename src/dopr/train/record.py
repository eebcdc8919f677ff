"""The record of a round: what was picked, what came of it, and the line of events.jsonl that says so."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from dopr.budget import Spent
from dopr.runlog import informative_share
from dopr.selection.history import Group
from dopr.selection.settings import Pick


def outcome_of(group: Group | None, all_right: bool) -> str:
    """Name of a group's outcome: ``mixed``, ``all_wrong``, ``all_right`` or ``unscorable``."""
    if group is None:
        return "unscorable"
    return "mixed" if group.mixed else "all_right" if all_right else "all_wrong"


@dataclass
class Round:
    """The record of one round until its update has run."""

    number: int
    picks: list[Pick]
    started: float
    candidates: list[str]
    scores: list[float]
    rewards: list[list[float | None]]
    rates: list[float | None]
    outcomes: list[str]
    actions: list[str]
    disagreements: list[float | None]
    tokens: list[int]
    searched: list[int]
    from_base: list[int]
    labels: list[int | None]
    skills: list[str | None]
    replayed: int
    cut_off: float
    select_seconds: float
    generate_seconds: float
    entropies: dict[int, float] = field(default_factory=dict)

    @property
    def informative_share(self) -> float:
        """Share of groups with differing rewards, of those with at least two rollouts; 0 if there are none."""
        return informative_share(zip(self.outcomes, map(len, self.rewards), strict=True)) or 0.0

    def event(self, spent: Spent, step: int) -> dict[str, Any]:
        """The round as a plain dict, one line of events.jsonl."""
        picks = [
            {
                "id": pick.prompt_id, "score": round(pick.score, 6), "rollouts": len(self.rewards[i]),
                "rewards": self.rewards[i], "success": self.rates[i], "outcome": self.outcomes[i],
                "predicted": None if pick.predicted is None else round(pick.predicted, 6),
                "disagreement": self.disagreements[i],
                "action": self.actions[i], "entropy": self.entropies.get(i), "tokens": self.tokens[i], "searched": self.searched[i],
                "from_base": self.from_base[i], "cluster": self.labels[i], "skill": self.skills[i],
            }
            for i, pick in enumerate(self.picks)
        ]  # fmt: skip
        seconds = {
            "round": time.perf_counter() - self.started,
            "generate": self.generate_seconds,
            "select": self.select_seconds,
        }
        return {
            "round": self.number, "step": step, "picks": picks, "candidates": self.candidates, "scores": self.scores,
            "replayed": self.replayed, "seconds": {k: round(v, 6) for k, v in seconds.items()},
            "spent": spent.as_dict(),
        }  # fmt: skip
