"""Early word on runs that go wrong slowly: unscorable or cut-off rollouts, collapsing entropy, runaway length, gradients.

Each sign is judged over the last ``WINDOW`` rounds, some against the run's first ones. A warning names the likely cause and
a remedy; it comes again only after the number of rounds has doubled. The thresholds were set so that sound runs of the
packaged worlds stay silent (docs/reliability.md).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from dopr.train.watch import Verdict

WINDOW, BASELINE, FEWEST = 16, 16, 8
_NORMS = 64

MANY_UNSCORABLE = 0.25
MOST_TRUNCATED = 0.9
COLLAPSED, NEARLY_CERTAIN = 0.1, 0.05
LONGER = 3.0
SPIKE, SPIKES = 10.0, 3
ZEROS = 8


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What one round shows.

    Attributes:
        rollouts: Rollouts generated.
        unscorable: Of them, those that no reward function could score.
        success: Mean success rate of the scorable groups, in [0, 1]; ``None`` if there is none.
        mixed: Share of groups with differing rewards.
        length: Mean completion tokens.
        truncated: Share of completions cut off at the length limit; ``None`` if unknown.
        entropy: Mean token entropy in nats; ``None`` if unknown.
    """

    rollouts: int
    unscorable: int
    success: float | None
    mixed: float
    length: float
    truncated: float | None
    entropy: float | None


class HealthWatch:
    """Watches rounds and updates.

    Args:
        stop_unscorable: Stop when more than this share of the window's rollouts is unscorable; 0 = never.
        stop_skipped: Stop when so many of the last twice as many updates were skipped; 0 = never.
        quiet: Give no warnings, only verdicts that stop.
    """

    def __init__(self, *, stop_unscorable: float, stop_skipped: int, quiet: bool = False) -> None:
        self.stop_unscorable, self.stop_skipped, self.quiet = stop_unscorable, stop_skipped, quiet
        self.skipped = 0
        self._round = 0
        self._recent: deque[Signs] = deque(maxlen=WINDOW)
        self._first: list[Signs] = []
        self._next: dict[str, int] = {}
        self._norms: deque[float] = deque(maxlen=_NORMS)
        self._spikes: deque[int] = deque(maxlen=WINDOW)
        self._skips: deque[int] = deque(maxlen=2 * stop_skipped or WINDOW)
        self._zeros = 0

    # -- rounds --------------------------------------------------------------------------------------------------

    def see_round(self, signs: Signs) -> list[Verdict]:
        """Take the signs of a finished round."""
        self._round += 1
        self._recent.append(signs)
        if len(self._first) < BASELINE:
            self._first.append(signs)
        if len(self._recent) < FEWEST:
            return []
        found = [self._truncated(), self._unscorable()]
        if self._round >= BASELINE + WINDOW and len(self._recent) == WINDOW:
            found += [self._collapse(), self._longer()]
        return [verdict for verdict in found if verdict is not None and self._due(verdict)]

    def _unscorable(self) -> Verdict | None:
        share = sum(s.unscorable for s in self._recent) / max(1, sum(s.rollouts for s in self._recent))
        text = (
            f"{share:.0%} of the rollouts in the last {len(self._recent)} rounds could not be scored; they are left out, not "
            "counted as wrong. The reward function fails, times out or returns something other than a number for them: mend it, "
            "or give it more time with --reward-timeout."
        )
        if self.stop_unscorable and share > self.stop_unscorable:
            self._recent.clear()  # a resumed run gets its chance
            return Verdict("unscorable", text, stop=True)
        return Verdict("unscorable", text, stop=False) if share > MANY_UNSCORABLE else None

    def _truncated(self) -> Verdict | None:
        share = _mean([s.truncated for s in self._recent])
        success = _mean([s.success for s in self._recent])
        if (
            len(self._recent) < WINDOW
            or share is None
            or share < MOST_TRUNCATED
            or (success is not None and success > 0.5)
        ):
            return None
        return Verdict(
            "truncated",
            f"{share:.0%} of the completions in the last {len(self._recent)} rounds were cut off at the length limit, so few "
            "can hold a final answer. Raise --max-completion-length, or ask for shorter answers; a policy that never ends a "
            "completion may lack an end token in its tokenizer.",
            stop=False,
        )

    def _collapse(self) -> Verdict | None:
        then, now = _mean([s.entropy for s in self._first]), _mean([s.entropy for s in self._recent])
        success = _mean([s.success for s in self._recent]) or 0.0
        mixed = _mean([s.mixed for s in self._recent]) or 0.0
        # A policy that has become certain because it is right, or still disagrees with itself, is fine.
        if (
            then is None
            or now is None
            or now > COLLAPSED * then
            or now > NEARLY_CERTAIN
            or success > 0.5
            or mixed > 0.5
        ):
            return None
        return Verdict(
            "entropy",
            f"The policy's token entropy has fallen from {then:.2g} to {now:.2g} nats while it is right only {success:.0%} of "
            "the time: it repeats itself and explores no more. Lower --learning-rate, raise --temperature, add "
            "--trainer entropy_coef=0.01 or --trainer beta=0.01, and start from an earlier checkpoint.",
            stop=False,
        )

    def _longer(self) -> Verdict | None:
        then, now = _mean([s.length for s in self._first]) or 0.0, _mean([s.length for s in self._recent]) or 0.0
        cut_then, cut_now = _mean([s.truncated for s in self._first]), _mean([s.truncated for s in self._recent])
        if now < LONGER * then or cut_now is None or cut_then is None or cut_now < 0.5 or cut_then > 0.25:
            return None
        return Verdict(
            "length",
            f"Completions have grown from {then:.0f} to {now:.0f} tokens and {cut_now:.0%} of them now hit the length limit. "
            "The policy rambles or repeats itself, or length pays. Lower --learning-rate, look at completions with dopr eval, "
            "try --trainer mask_truncated_completions=true or loss_type=dr_grpo; if it needs the room, raise "
            "--max-completion-length.",
            stop=False,
        )

    # -- updates -------------------------------------------------------------------------------------------------

    def see_update(self, norm: float | None, *, finite_loss: bool, mixed: bool, rate: float) -> list[Verdict]:
        """Take one update before it is applied.

        Args:
            norm: Gradient norm before clipping; ``None`` = no gradient at all.
            finite_loss: Whether every micro-batch's loss was finite.
            mixed: Whether the latest round had a group with differing rewards.
            rate: Learning rate, for the diagnosis.
        """
        if not finite_loss or (norm is not None and not math.isfinite(norm)):
            return self._skip(finite_loss, rate)
        self._skips.append(0)
        found = [self._zero(norm, mixed), self._spike(norm, mixed)]
        return [verdict for verdict in found if verdict is not None and self._due(verdict)]

    def _skip(self, finite_loss: bool, rate: float) -> list[Verdict]:
        self.skipped += 1
        self._skips.append(1)
        recent = sum(self._skips)
        sound = (
            f"the last sound gradient norm was {self._norms[-1]:.3g}" if self._norms else "no gradient was sound yet"
        )
        text = (
            f"An update was skipped because its {'gradient' if finite_loss else 'loss'} is NaN or infinite: {recent} of the "
            f"last {len(self._skips)} updates, {self.skipped} in all ({sound}, the learning rate is {rate:.3g}). Likely "
            "causes: a learning rate that has blown up the weights, half precision (try --dtype float32), or rewards of "
            "enormous size."
        )
        if stop := bool(self.stop_skipped) and recent >= self.stop_skipped:
            self._skips.clear()
        verdict = Verdict("skipped", text, stop=stop)
        return [verdict] if self._due(verdict) else []

    def _zero(self, norm: float | None, mixed: bool) -> Verdict | None:
        # Without a mixed group nothing is to be learned anyway, and the constant watch speaks of that.
        self._zeros = self._zeros + 1 if not norm and mixed else 0
        if self._zeros < ZEROS:
            return None
        return Verdict(
            "zero_gradient",
            f"The gradient was zero in {self._zeros} updates in a row although rewards differ within the groups: nothing is "
            "learned. Are all completions masked (mask_truncated_completions with a length limit that all hit), or are the "
            "weights frozen?",
            stop=False,
        )

    def _spike(self, norm: float | None, mixed: bool) -> Verdict | None:
        if not norm or not mixed:  # what replay alone leaves is thirty times smaller, and would make spikes of the rest
            return None
        usual = median(self._norms) if len(self._norms) >= WINDOW else math.inf
        self._spikes.append(int(norm > SPIKE * usual))
        self._norms.append(norm)
        if sum(self._spikes) < SPIKES:
            return None
        return Verdict(
            "gradient_spikes",
            f"The gradient norm was more than {SPIKE:.0f} times its median ({usual:.3g}) in {sum(self._spikes)} of the last "
            f"{len(self._spikes)} updates (now {norm:.3g}): training is unstable. Lower --learning-rate, set --trainer "
            "max_grad_norm lower, or use larger groups.",
            stop=False,
        )

    # -- bookkeeping ---------------------------------------------------------------------------------------------

    def _due(self, verdict: Verdict) -> bool:
        if verdict.stop:
            return True
        count = self.skipped if verdict.code == "skipped" else self._round
        if self.quiet or count < self._next.get(verdict.code, 0):
            return False
        self._next[verdict.code] = 2 * count
        return True

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "round": self._round, "recent": [asdict(s) for s in self._recent], "first": [asdict(s) for s in self._first],
            "next": dict(self._next), "norms": list(self._norms), "spikes": list(self._spikes), "zeros": self._zeros,
            "skipped": self.skipped, "skips": list(self._skips),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        self._round, self._zeros = int(state["round"]), int(state["zeros"])
        self.skipped, self._skips = int(state["skipped"]), deque(map(int, state["skips"]), maxlen=self._skips.maxlen)
        self._recent = deque((Signs(**s) for s in state["recent"]), maxlen=WINDOW)
        self._first = [Signs(**s) for s in state["first"]]
        self._next = {code: int(count) for code, count in state["next"].items()}
        self._norms = deque(map(float, state["norms"]), maxlen=_NORMS)
        self._spikes = deque(map(int, state["spikes"]), maxlen=WINDOW)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return sum(known) / len(known) if known else None
