"""The answer of a completion as a key, to see whether rollouts of a prompt agree; no verifier is asked."""

from __future__ import annotations

from typing import Any

from dopr.tasks.answers import last_number, number_text, parse_number
from dopr.tasks.boxes import last_boxed

_TAIL = 4000  # characters read; an answer stands at the end
_LONGEST = 200  # characters of a key without number or box


def answer_key(completion: str | list[dict[str, Any]]) -> str:
    """Equal for completions with the same final answer: the last box, else the last number, else the last line."""
    text = completion if isinstance(completion, str) else str(completion[-1].get("content") or "") if completion else ""
    text = text[-_TAIL:]
    if boxed := last_boxed(text):
        number = parse_number(boxed)
        return boxed if number is None else number_text(number)
    number = last_number(text)
    if number is not None:
        return number_text(number)
    lines = text.strip().splitlines()
    return lines[-1].strip()[-_LONGEST:] if lines else ""
