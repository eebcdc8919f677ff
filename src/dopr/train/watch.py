"""Early word on runs whose groups carry no signal."""

from __future__ import annotations

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
