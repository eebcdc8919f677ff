"""Early word on runs whose groups carry no signal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_REMEDY = {
    "all_wrong": "all their rollouts failed. The problems may be too hard for this policy, the answers cut off "
    "(raise --max-completion-length), or the verifier does not find the answer in the completions (look at them with "
    "dopr eval).",
    "all_right": "all their rollouts succeeded. The policy has mastered most of what is chosen; if that comes early, bring "
    "harder problems.",
    "unscorable": "none of their rollouts could be scored. The reward function fails or returns None for all of them.",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A warning and whether the run should end."""

    code: str
    text: str
    stop: bool


class ConstantWatch:
    """Counts rounds in a row without a mixed group.

    Args:
        warn_after: Rounds until a warning, repeated at each doubling; twice as many where some groups were all wrong and
            others all right, since a policy that learns passes through such stretches; 0 = never.
        stop_after: Rounds until the run should stop; 0 = never.
    """

    def __init__(self, warn_after: int, stop_after: int) -> None:
        self.warn_after, self.stop_after = warn_after, stop_after
        self._run = 0
        self._seen: Counter[str] = Counter()
        self._next_warning = warn_after

    def state_dict(self) -> dict[str, Any]:
        """What was counted, as plain values."""
        return {"run": self._run, "seen": dict(self._seen), "next": self._next_warning, "after": self.warn_after}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        self._run, self._seen = state["run"], Counter(state["seen"])
        if state.get("after", self.warn_after) == self.warn_after:  # else it has been changed since
            self._next_warning = state["next"]

    def see(self, outcomes: Sequence[str]) -> Verdict | None:
        """Take the outcomes of one round's groups (``mixed``, ``all_wrong``, ``all_right``, ``unscorable``)."""
        if "mixed" in outcomes:
            self._run = 0
            self._seen.clear()
            return None
        self._run += 1
        self._seen.update(outcomes)
        stop = bool(self.stop_after) and self._run >= self.stop_after
        due = self._next_warning * (1 if len(self._seen) == 1 else 2)
        if not stop and not (self.warn_after and self._run >= due):
            return None
        self._next_warning *= 2
        code, _ = self._seen.most_common(1)[0]
        counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in self._seen.most_common())
        text = f"No learning signal in {self._run} rounds in a row ({counts}): in most of them {_REMEDY[code]}"
        if stop:  # a resumed run gets its chance
            self._run, self._next_warning = 0, self.warn_after
        return Verdict(code, text, stop)


class TopWatch:
    """Notices that no rollout earns what would count as verified, although some earn more than the least.

    Args:
        top: Total reward from which a rollout is verified.
        after: Rounds until the warning, which is given once; 0 = never.
    """

    def __init__(self, top: float, after: int) -> None:
        self.top, self.after = top, after
        self._rounds, self._low, self._high = 0, 0.0, -math.inf

    def state_dict(self) -> dict[str, Any]:
        """What was seen, as plain values."""
        return {"rounds": self._rounds, "low": self._low, "high": self._high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``; one of an older version may be empty."""
        self._rounds = int(state.get("rounds", 0))
        self._low, self._high = float(state.get("low", 0.0)), float(state.get("high", -math.inf))

    def see(self, rewards: Sequence[float]) -> Verdict | None:
        """Take the known total rewards of one round."""
        self._rounds += bool(rewards)
        self._low, self._high = min([self._low, *rewards]), max([self._high, *rewards])
        if self._rounds != self.after or self._high >= self.top or self._high <= self._low:
            return None
        return Verdict(
            "top",
            f"No rollout of {self._rounds} rounds has earned {self.top:.4g}, from which one counts as right; the most was {self._high:.4g}. If "
            f"that is a right answer, give --success {self._high:.4g} (dopr_success): until then nothing is replayed, and right answers are searched past.",
            stop=False,
        )
