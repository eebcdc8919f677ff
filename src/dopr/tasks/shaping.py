r"""Rewards for the form of a completion, and combinations of rewards.

=====================  ===============================================================================================
format:boxed           1.0 for exactly one ``\boxed{}`` that is closed and not empty, after any ``</think>``
format:answer          1.0 for exactly one ``<answer>...</answer>`` with something in it, and nothing but space behind it
format:think           1.0 for ``<think>...</think>`` at the start, once, and something behind it
overlong:MAX,BUFFER    1.0 up to MAX - BUFFER tokens, falling in a line to 0.0 at MAX (DAPO's soft overlong punishment,
                       arXiv 2503.14476 eq. 13, plus one: a constant does not change an advantage)
A&B                    the smallest of the two: ``math&format:boxed`` pays only what is correct *and* well-formed
=====================  ===============================================================================================

Each has TRL's signature. Weighted sums are several ``--reward`` with ``--reward-weight``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dopr.errors import RewardError, suggest
from dopr.tasks.guard import COUNTERS
from dopr.tasks.verifiers import text_of

if TYPE_CHECKING:
    from dopr.tasks.rewards import RewardFunction

_ANSWER = re.compile(r"<answer>\s*\S.*?</answer>\s*\Z", re.DOTALL)
_THINK = re.compile(r"\A\s*<think>.*?</think>\s*\S", re.DOTALL)


class Shaping:
    """A reward on the form of completions alone, in TRL's signature; it never fails and needs no gold."""

    extract: Callable[[str], str | None] | None = None

    def __init__(self, name: str, score: Callable[[str, int | None], float]) -> None:
        self.__name__ = name
        self.counts = dict.fromkeys(COUNTERS, 0)
        self._score = score

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Rewards in [0, 1]; ``completion_ids`` among the columns gives the lengths in tokens."""
        ids = columns.get("completion_ids") or [None] * len(completions)
        self.counts["scored"] += len(completions)
        return [
            self._score(text_of(completion), None if tokens is None else len(tokens))
            for completion, tokens in zip(completions, ids, strict=True)
        ]


class Gate:
    """The smallest of several rewards: all of them must be earned. None where any is None."""

    def __init__(self, rewards: Sequence[RewardFunction]) -> None:
        self.rewards = list(rewards)
        self.__name__ = "&".join(reward.__name__ for reward in rewards)
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.extract = next((r.extract for r in rewards if r.extract is not None), None)

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """Rewards, None where one of the parts cannot be scored."""
        before = [dict(reward.counts) for reward in self.rewards]
        parts = [reward(completions, **columns) for reward in self.rewards]
        rewards: list[float | None] = []
        for values in zip(*parts, strict=True):
            known = [value for value in values if value is not None]
            rewards.append(min(known) if len(known) == len(values) else None)
        self.counts["scored"] += sum(reward is not None for reward in rewards)
        self.counts["unscorable"] += sum(reward is None for reward in rewards)
        for name in ("errors", "timeouts"):
            self.counts[name] += sum(r.counts[name] - old[name] for r, old in zip(self.rewards, before, strict=True))
        return rewards


def format_reward(form: str) -> Shaping:
    """1.0 where the completion has the form.

    Raises:
        RewardError: an unknown form.
    """
    if form not in _FORMS:
        raise RewardError(f"There is no reward 'format:{form}'. {suggest(form, _FORMS)}")
    has = _FORMS[form]
    return Shaping(f"format:{form}", lambda text, tokens: float(has(text)))


def _one_box(text: str) -> bool:
    from dopr.tasks.final_answer import boxes

    text = text.rpartition("</think>")[2]
    return len(boxes(text)) == 1 and text.count("\\boxed") == 1


def _one_answer(text: str) -> bool:
    return text.count("<answer>") == text.count("</answer>") == 1 and _ANSWER.search(text) is not None


def _thought(text: str) -> bool:
    return text.count("<think>") == text.count("</think>") == 1 and _THINK.match(text) is not None


_FORMS: dict[str, Callable[[str], bool]] = {"boxed": _one_box, "answer": _one_answer, "think": _thought}


def overlong(option: str) -> Shaping:
    """DAPO's soft overlong punishment plus one, from ``MAX,BUFFER`` in tokens.

    Raises:
        RewardError: not two whole numbers with ``0 < BUFFER <= MAX``.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*", option)
    most, buffer = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < buffer <= most:
        raise RewardError(
            f"The reward 'overlong:{option}' must be overlong:MAX,BUFFER in tokens with 0 < BUFFER <= MAX, such as "
            "overlong:4096,1024: full reward up to MAX - BUFFER, none from MAX on."
        )

    def score(text: str, tokens: int | None) -> float:
        if tokens is None:
            raise RewardError(
                "The reward 'overlong' needs the column completion_ids, which training and evaluation give."
            )
        return 1.0 + soft_overlong(tokens, most, buffer)

    return Shaping(f"overlong:{most},{buffer}", score)


def soft_overlong(tokens: int, most: int, buffer: int) -> float:
    """DAPO's length punishment (arXiv 2503.14476, eq. 13): 0 up to ``most - buffer`` tokens, then falling to -1 at ``most``."""
    return min(0.0, max(-1.0, (most - buffer - tokens) / buffer))
