"""Where a completion states its final answer, as its verifier reads it: what follows does not change the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dopr.tasks.verifiers import Verifier

Tokens = tuple[int, ...]


class StatedAnswers:
    """Reads the answer that the beginning of a completion states.

    Args:
        extract: Canonical answer of a text, None where it has none; it decides the verdict.
        decode: Text of token ids.
    """

    def __init__(self, extract: Callable[[str], str | None], decode: Callable[[Sequence[int]], str]) -> None:
        self._extract, self._decode = extract, decode
        self._known: dict[Tokens, str | None] = {}

    def of(self, tokens: Tokens) -> str | None:
        """The answer of a completion, or of the beginning of one."""
        if tokens not in self._known:
            self._known[tokens] = self._extract(self._decode(tokens))
        return self._known[tokens]

    def end(self, tokens: Tokens) -> int | None:
        """Tokens of the shortest beginning from which on the answer stays that of the whole; None if it has none."""
        answer, end = self.of(tokens), len(tokens)
        if answer is None:
            return None
        while end and self.of(tokens[: end - 1]) == answer:
            end -= 1
        return end or None

    def changed_by(self, beginning: Tokens, candidates: Sequence[int]) -> list[int]:
        """Those of the next tokens ``candidates`` that change the answer."""
        answer = self.of(beginning)
        return [token for token in candidates if self.of((*beginning, token)) != answer]


def stated_answers(reward_funcs: Sequence[Any], tokenizer: Any) -> StatedAnswers | None:
    """A reader for the only one of ``reward_funcs`` if it is a named verifier; None for others.

    Only then is it known that equal answers get equal verdicts: a function of the user's, or a reward on the form, may turn
    down a right answer for something else in its completion.
    """
    if len(reward_funcs) != 1 or not isinstance(reward_funcs[0], Verifier):
        return None
    return StatedAnswers(reward_funcs[0].extract, lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True))
