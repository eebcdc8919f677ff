"""Which column is the prompt, the answer and the id, and what may stand in it.

Where the user names none, the first of these that the data has is taken:

* prompt: prompt, question, problem, instruction, input, query; where another column holds a part of the problem
  (:mod:`dopr.tasks.companions`), the user must name it;
* answer: answer, final_answer, target, label, ground_truth, reward_model.ground_truth (verl), gold, solution, output. A ``solution``
  is a worked text as a rule, of which the last box counts; hence it comes after the columns that hold the bare answer;
* id: id, unique_id, extra_info.index (verl); else the id is a hash of the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dopr.errors import DataError, half_pair, suggest
from dopr.tasks.answers import gold_text
from dopr.tasks.rows import Row
from dopr.tasks.templates import Messages

PROMPT_COLUMNS = ("prompt", "question", "problem", "instruction", "input", "query")
ANSWER_COLUMNS = (
    "answer",
    "final_answer",
    "target",
    "label",
    "ground_truth",
    "reward_model.ground_truth",
    "gold",
    "solution",
    "output",
)
ID_COLUMNS = ("id", "unique_id", "extra_info.index")

#: Roles of messages that the policy answers; a conversation that ends otherwise holds an answer already.
_ASKING = frozenset(["user", "tool", "system", "developer"])
_MISSING = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """The columns that the user names; None where they are to be looked up."""

    prompt: str | None = None
    answer: str | None = None
    ident: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns chosen; ``answer`` and ``ident`` are None where there is none."""

    prompt: str
    answer: str | None
    ident: str | None


def field(data: Mapping[str, Any], name: str) -> Any:
    """Value of the column ``name``, or of the field inside a column that a dotted name names; None where it is absent."""
    value = _look_up(data, name)
    return None if value is _MISSING else value


def _look_up(data: Mapping[str, Any], name: str) -> Any:
    if name in data:
        return data[name]
    value: Any = data
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _MISSING
        value = value[part]
    return value


def choose(rows: Sequence[Row], source: str, names: Names, *, require_answer: bool) -> Columns:
    """Columns of ``rows``: the named ones, else the first known names that the data has.

    Raises:
        DataError: a named column is absent, or no known name is there.
    """
    present = list(dict.fromkeys(name for row in rows for name in row.data))

    def first(named: str | None, known: tuple[str, ...], option: str) -> str | None:
        if named is not None:
            if not any(_look_up(row.data, named) is not _MISSING for row in rows):
                raise DataError(f"{source} has no column {named!r} ({option}). {suggest(named, map(str, present))}")
            return named
        return next((k for k in known if any(_look_up(row.data, k) is not _MISSING for row in rows)), None)

    found = f"{source} has the columns {', '.join(map(repr, present)) or '(none)'}"
    prompt = first(names.prompt, PROMPT_COLUMNS, "--prompt-column")
    if prompt is None:
        raise DataError(
            f"{found}, and none is a prompt ({', '.join(PROMPT_COLUMNS)}). Use --prompt-column to name the one that is."
        )
    answer = first(names.answer, tuple(k for k in ANSWER_COLUMNS if k != prompt), "--answer-column")
    if answer is None and require_answer:
        raise DataError(
            f"{found}, and none is an answer ({', '.join(ANSWER_COLUMNS)}). Use --answer-column to name the one that is."
        )
    return Columns(prompt=prompt, answer=answer, ident=first(names.ident, ID_COLUMNS, "--id-column"))


def read_prompt(row: Row, column: str) -> str | Messages:
    """The prompt of a row: text, or chat messages.

    Raises:
        DataError: it is missing, empty, of another type, or ends with an answer.
    """
    value = field(row.data, column)
    where = f"{row.where}: the prompt (column {column!r})"
    if isinstance(value, str):
        _check_text(value, where)
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        messages = [_message(m, where) for m in value]
        if messages and messages[-1]["role"] not in _ASKING:
            raise DataError(
                f"{where} ends with a message of the role {messages[-1]['role']!r}, so the policy would be shown what it must "
                "find. Cut what stands behind the last message of the user."
            )
        if messages:
            return messages
    found = "missing (null)" if value is None else f"of type {type(value).__name__}" if value != [] else "an empty list"
    raise DataError(f"{where} is {found}; it must be text, or a list of messages with role and content.")


def _message(message: Any, where: str) -> dict[str, str]:
    role, content = (message.get("role"), message.get("content")) if isinstance(message, Mapping) else (None, None)
    if not isinstance(role, str) or not isinstance(content, str):
        raise DataError(
            f"{where} holds a list whose entries are not all messages; each must be like "
            '{"role": "user", "content": "..."} with text in both.'
        )
    _check_text(content, where)
    return {"role": role, "content": content}


def _check_text(text: str, where: str) -> None:
    if not text.strip():
        raise DataError(f"{where} is empty.")
    if half_pair(text):
        raise DataError(f"{where} holds half of a surrogate pair, which no tokenizer can read.")


def read_id(row: Row, column: str) -> str:
    """The id of a row as text.

    Raises:
        DataError: it is missing, empty, neither text nor a number, or no text that can be written.
    """
    value = field(row.data, column)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)  # a column of integers with a gap is read as floats by several writers
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError(f"{row.where}: the id (column {column!r}) is {value!r}; it must be text or an integer.")
    if half_pair(str(value)):
        raise DataError(
            f"{row.where}: the id (column {column!r}) is {value!r}, with half of a surrogate pair, which cannot be written as UTF-8."
        )
    return str(value)


def read_answer(row: Row, column: str) -> str:
    """The gold answer of a row as text.

    Raises:
        DataError: it cannot be checked (:func:`dopr.tasks.answers.gold_text`).
    """
    try:
        return gold_text(field(row.data, column))
    except ValueError as reason:
        raise DataError(f"{row.where}: the answer (column {column!r}) cannot be checked: {reason}.") from None
