"""Columns that hold a part of the problem beside the one taken as its prompt: the choices of a question, the input of an instruction.

Only one column becomes the prompt. Where such a column holds something that the prompt does not say, the policy would be asked half a
problem, so that is refused unless the user names the prompt column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dopr.errors import DataError
from dopr.tasks.rows import Row

#: In small letters; data sets write some of them with a capital.
_PARTS = frozenset(
    ["instruction", "choices", "options", "passage", "context", "article", "paragraph", "story", "body", "ctx"]
)
_LABEL = re.compile(r"\A\(?[A-Za-z][).:]\s*")  # an option's letter, which a prompt may set otherwise


def left_out(row: Row, prompt: str) -> list[str]:
    """Columns of ``row`` with a part of the problem that its column ``prompt`` does not hold."""
    parts = [name for name, value in row.data.items() if name != prompt and _is_part(name, prompt) and value]
    if not parts:
        return []
    asked = " ".join(map(_plain, _texts(row.data.get(prompt))))
    return [name for name in parts if not all(_plain(_LABEL.sub("", text)) in asked for text in _texts(row.data[name]))]


def refuse_left_out(rows: Sequence[Row], source: str, prompt: str) -> None:
    """Stop where the prompt that was chosen, not named, is less than the problem.

    Raises:
        DataError: :func:`left_out` finds columns.
    """
    found = [(row.where, names) for row in rows if (names := left_out(row, prompt))]
    if found:
        where, names = found[0]
        raise DataError(
            f"{source}: the column {prompt!r} alone would become the prompt, but in {len(found):,} of {len(rows):,} rows "
            f"{_listed(names)} a part of the problem that is not in it (first {where}). Write one column 'prompt' that says all of the problem, or give --prompt-column "
            f"{prompt} to take that column alone."
        )


def describe(names: Sequence[str], prompt: str) -> str:
    """What is left out of one row, for messages."""
    return f"{_listed(names)} a part of the problem that the prompt (column {prompt!r}) does not"


def _listed(names: Sequence[str]) -> str:
    return (
        f"the column{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))} hold{'' if len(names) > 1 else 's'}"
    )


def _is_part(name: str, prompt: str) -> bool:
    return name.lower() in _PARTS or (name == "input" and prompt == "instruction")


def _texts(value: Any) -> Iterator[str]:
    """Every text and number within ``value``."""
    if isinstance(value, str | int | float):
        yield str(value)
    elif isinstance(value, Mapping):
        for inside in value.values():
            yield from _texts(inside)
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _texts(inside)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
