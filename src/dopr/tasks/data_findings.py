"""What may be wrong with a row of a problem file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

#: Kinds of findings, in the order in which they are shown.
KINDS = {
    "row": "prompts or ids that cannot be used",
    "column": "missing columns",
    "part": "prompts that are only a part of the problem (write one column 'prompt' that says all of it, or name one with "
    "--prompt-column to take it alone)",
    "duplicate-id": "ids used twice",
    "conflict": "prompts that came before with another answer or other tests",
    "repeat": "repeated problems",
    "gold": "golds that are missing or that their own verifier rejects or would misread",
    "unread": "golds that only an identical text can match",
    "length": "prompts over the length limit",
    "overlap": "problems that the other file holds, whole or nearly",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one row."""

    kind: str
    """One of :data:`KINDS`."""
    where: str
    """The row: ``line 3``, counted from 1."""
    id: str
    """The problem's id, empty where it has none."""
    text: str
    """What is wrong."""


def short(text: str | None) -> str:
    """A gold in a message."""
    return "(none)" if text is None else repr(text if len(text) <= 60 else text[:57] + "...")


def column_names(rows: Iterable[dict[str, Any]]) -> str:
    """The columns of ``rows`` in a message."""
    return ", ".join(dict.fromkeys(repr(name) for row in rows for name in row))
