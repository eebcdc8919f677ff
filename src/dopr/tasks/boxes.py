r"""Boxes: ``\boxed{...}``, ``\fbox{...}``, ``\boxed 8``; where they stand in a completion or a gold, and what is in them.

It takes time linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"\\(?:boxed|fbox|framebox)\s*(?P<open>\{)|\\(?:boxed|fbox)\s+(?P<bare>-?[0-9]+(?:\.[0-9]+)?)|\\.|[{}]", re.DOTALL
)
_UNBOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*")
_EMPTY = re.compile(r"(?:[\s{}$.]|\\(?:boxed|fbox|framebox|text|[,;:! ])(?![A-Za-z]))*")
_BRACED = re.compile(r"\A\{([^{}]*)\}\Z")


@dataclass(frozen=True, slots=True)
class Box:
    """A box: where it starts and ends, and what it holds."""

    start: int
    end: int
    inside: str


def find_boxes(text: str) -> list[Box]:
    """The outermost boxes that are closed and not empty."""
    spans: list[tuple[int, int, int, int]] = []  # start, start and end of the content, end
    opened: list[tuple[bool, int, int]] = []  # of each open brace: whether a box's, its start, the start of its content
    for token in _TOKEN.finditer(text):
        if token["open"]:
            opened.append((True, token.start(), token.end()))
        elif token["bare"]:
            spans.append((token.start(), *token.span("bare"), token.end()))
        elif token[0] == "{":
            opened.append((False, token.start(), token.end()))
        elif token[0] == "}" and opened:
            is_box, start, content = opened.pop()
            if is_box:
                while spans and spans[-1][0] > start:  # boxes inside this one
                    spans.pop()
                spans.append((start, content, token.start(), token.end()))
    return [
        Box(start, end, _BRACED.sub(r"\1", _UNBOX.sub("", text[content:closed]).strip()))
        for start, content, closed, end in spans
        if not _EMPTY.fullmatch(text, content, closed)
    ]


def last_boxed(text: str) -> str | None:
    """What stands in the last box of ``text``; None where there is none."""
    boxes = find_boxes(text) if "\\boxed" in text or "\\fbox" in text or "\\framebox" in text else []
    return boxes[-1].inside if boxes else None
