"""The two kinds of skill the packaged worlds are made of: their prompts, right answers and designed base behaviour.

A latent skill (`rivi 4173:`) names itself by a nonsense word. Exactly one of six strategies answers it; a completion
announces a strategy by its letter, carries it out on the four digits and ends `=ANSWER` (`r=3714`). The sum skill
(`sum 385:`, the last digit of 3 + 8 + 5) is right when the completion thinks first by writing the running sums
(`316=6`) and is a blind guess when it does not (`=2`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

STRATEGIES: Mapping[str, Callable[[str], str]] = {
    "r": lambda digits: digits[::-1],  # reverse
    "l": lambda digits: digits[1:] + digits[0],  # rotate left by one
    "h": lambda digits: digits[2:] + digits[:2],  # swap the halves
    "p": lambda digits: digits[1] + digits[0] + digits[3] + digits[2],  # swap within pairs
    "u": lambda digits: "".join(str((int(d) + 1) % 10) for d in digits),  # each digit up by one, 9 becomes 0
    "c": lambda digits: "".join(str(9 - int(d)) for d in digits),  # complement to nine
}
# How a latent skill's wrong mass is shared by the five wrong strategies; uneven, as a real policy's would be.
_WRONG_SHARES = (0.32, 0.24, 0.18, 0.14, 0.12)
_TEST_SHARE = 8  # one argument in eight is held out, in every world and for every word


def is_held_out(argument: str) -> bool:
    """Whether ``argument`` belongs to the test split; a function of its digits alone, so no prompt is in both."""
    return zlib.crc32(f"held-out:{argument}".encode()) % _TEST_SHARE == 0


@cache
def latent_arguments() -> tuple[str, ...]:
    """The four-digit arguments on which all six strategies differ, so that a wrong one is never right by luck."""
    return tuple(a for a in _numbers(4) if len({strategy(a) for strategy in STRATEGIES.values()}) == len(STRATEGIES))


@cache
def _numbers(length: int) -> tuple[str, ...]:
    return tuple(f"{number:0{length}d}" for number in range(10**length))


@cache
def _split(arguments: tuple[str, ...], split: str) -> tuple[str, ...]:
    return tuple(a for a in arguments if is_held_out(a) == (split == "test"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """The prompts of one word (of one length) in one split, written only when asked for."""

    word: str
    lead: str  # digit put before the argument to make its number, so that numbers are unique within the skill
    arguments: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.arguments)

    def __getitem__(self, index: int) -> tuple[int, str]:
        argument = self.arguments[index]
        return int(self.lead + argument), f"{self.word} {argument}:"


class Skill(Protocol):
    """What `worlds` needs of a skill; p_plus and p_minus are for a policy that executes what it announces."""

    @property
    def name(self) -> str:
        """Stable name within its world, such as ``s07``."""

    @property
    def strategies(self) -> int:
        """M of theorem T3: how many strategies the base policy chooses between."""

    @property
    def p_plus(self) -> float:
        """Success probability of the right strategy."""

    @property
    def p_minus(self) -> float:
        """Success probability of a wrong strategy."""

    @property
    def base_success(self) -> float:
        """Designed success probability of the base policy, averaged over the skill's prompts."""

    def strata(self, split: str) -> list[Stratum]:
        """Every (number, prompt) of a split, in strata that a world draws from in turn."""

    def answer(self, prompt: str) -> str:
        """The right answer to ``prompt``."""

    def completions(self, prompt: str) -> dict[str, float]:
        """The designed base policy at temperature 1: completion text to probability, summing to 1."""


def argument_of(prompt: str) -> str:
    """The digits of a world prompt: ``rivi 4173:`` gives ``4173``."""
    return prompt.rsplit(" ", 1)[-1].removesuffix(":")


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentSkill:
    """One skill named by its ``word`` and answered by one of the six strategies."""

    name: str
    word: str
    right: str  # letter of the right strategy
    propensity: float  # probability that the base policy announces the right strategy
    turn: int  # rotates which wrong strategies are the likelier ones

    @property
    def strategies(self) -> int:
        """See `Skill`."""
        return len(STRATEGIES)

    @property
    def p_plus(self) -> float:
        """See `Skill`."""
        return 1.0

    @property
    def p_minus(self) -> float:
        """See `Skill`."""
        return 0.0

    @property
    def base_success(self) -> float:
        """See `Skill`."""
        return self.propensity

    def strata(self, split: str) -> list[Stratum]:
        """See `Skill`; a single stratum."""
        return [Stratum(word=self.word, lead="0", arguments=_split(latent_arguments(), split))]

    def answer(self, prompt: str) -> str:
        """See `Skill`."""
        return STRATEGIES[self.right](argument_of(prompt))

    def strategy_probabilities(self) -> dict[str, float]:
        """The designed base policy over strategy letters."""
        wrong = [letter for letter in STRATEGIES if letter != self.right]
        wrong = wrong[self.turn % len(wrong) :] + wrong[: self.turn % len(wrong)]
        shares = zip(wrong, _WRONG_SHARES, strict=True)
        return {self.right: self.propensity} | {w: (1 - self.propensity) * share for w, share in shares}

    def completions(self, prompt: str) -> dict[str, float]:
        """See `Skill`."""
        argument = argument_of(prompt)
        return {f"{s}={STRATEGIES[s](argument)}": p for s, p in self.strategy_probabilities().items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class SumSkill:
    """Last digit of the sum of three to five digits: think first, or guess."""

    name: str
    thinks: Mapping[int, float]  # number of digits to the probability that the base policy thinks first

    @property
    def strategies(self) -> int:
        """See `Skill`; think and guess."""
        return 2

    @property
    def p_plus(self) -> float:
        """See `Skill`."""
        return 1.0

    @property
    def p_minus(self) -> float:
        """See `Skill`; a guess is uniform over the ten digits."""
        return 0.1

    @property
    def base_success(self) -> float:
        """See `Skill`; every length is equally frequent."""
        think = sum(self.thinks.values()) / len(self.thinks)
        return think * self.p_plus + (1 - think) * self.p_minus

    def strata(self, split: str) -> list[Stratum]:
        """See `Skill`; one stratum per number of digits."""
        return [Stratum(word="sum", lead="1", arguments=_split(_numbers(n), split)) for n in self.thinks]

    def answer(self, prompt: str) -> str:
        """See `Skill`."""
        return str(sum(map(int, argument_of(prompt))) % 10)

    def completions(self, prompt: str) -> dict[str, float]:
        """See `Skill`."""
        argument = argument_of(prompt)
        think = self.thinks[len(argument)]
        running = "".join(str(sum(map(int, argument[: i + 1])) % 10) for i in range(len(argument)))
        guesses = {f"={digit}": (1 - think) * self.p_minus for digit in range(10)}
        return {f"{running}={running[-1]}": think} | guesses
