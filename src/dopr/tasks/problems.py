"""Problems: one prompt with one checkable answer, loaded from wherever the user keeps them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dopr.errors import ConfigError, DataError
from dopr.tasks import columns as col
from dopr.tasks.answers import structured_text
from dopr.tasks.companions import refuse_left_out
from dopr.tasks.passed_on import passed_on
from dopr.tasks.rows import Row, is_data_path, read_path
from dopr.tasks.templates import Messages, render_prompt

logger = logging.getLogger("dopr")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A prompt whose answer a verifier can check."""

    #: Stable name: the id column, else ``extra_info.index``, else the first 16 hex digits of the prompt's SHA-1.
    id: str
    #: Raw text, or chat messages ``[{"role": ..., "content": ...}, ...]``, as loaded.
    prompt: str | Messages
    #: Gold answer as text (GSM8K: the part after ``####``; 14.0 gives "14"); None where the verifier needs none.
    answer: str | None
    #: Every column but the prompt and ``answer``, untouched.
    extra: dict[str, Any]

    @property
    def wording(self) -> str:
        """The prompt as chat, every stretch of white space one blank: problems of one wording are the same question."""
        messages = [{"role": "user", "content": self.prompt}] if isinstance(self.prompt, str) else self.prompt
        return " ".join(" ".join(part for message in messages for part in message.values()).split())


def load_problems(
    source: str,
    *,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    id_column: str | None = None,
    split: str = "train",
    size: int | None = None,
    seed: int = 0,
    require_answer: bool = True,
    or_tests: bool = False,
    on_bad: Callable[[str], None] | None = None,
) -> list[Problem]:
    """Problems of ``source``, in its order.

    ``source`` is a ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file (verl's layout too); a directory written by
    ``datasets.save_to_disk`` or holding such files; a dataset on the Hugging Face hub (``org/name`` or
    ``org/name:config``); ``gym:TASK`` or ``gym:TASK?key=value,key=value`` (a reasoning-gym generator); or ``world:NAME``
    (a packaged world). Columns, where not named, are looked up as :mod:`dopr.tasks.columns` documents. A column may be
    named with dots for a field inside it: ``reward_model.ground_truth``.

    Args:
        source: where the problems are.
        prompt_column: column of the prompt, text or chat messages.
        answer_column: column of the gold answer.
        id_column: column of the ids; without it ``id`` or ``unique_id``, where there is one.
        split: for the sources that have splits.
        size: how many: generators make this many, of stored problems a subset drawn with ``seed`` is kept.
        seed: of the generator, or of the subset.
        require_answer: False accepts problems without an answer column.
        or_tests: a row with a column ``tests``, for the code verifier, needs no answer either way.
        on_bad: called with the message for each row that cannot be used, which is then left out; without it such rows
            are an error.

    Raises:
        DataError: the source is missing, cannot be read, or a row cannot be used (the first five named by their lines); the
            prompt column, where not named, holds only a part of the problem.
        ConfigError: ``size`` is not positive.
    """
    if size is not None and size < 1:
        raise ConfigError(f"size is {size}; it must be at least 1, or be left out to take all problems.")
    if source.startswith("world:"):
        from dopr.tasks.worlds import load_world

        return load_world(source.removeprefix("world:"), split=split, size=size, seed=seed)
    if source.startswith("gym:"):
        from dopr.tasks.gym import load_gym

        return load_gym(source.removeprefix("gym:"), split=split, size=size, seed=seed)
    names = col.Names(prompt=prompt_column, answer=answer_column, ident=id_column)
    if is_data_path(source):
        rows = read_path(Path(source).expanduser(), split=split)
    else:
        from dopr.tasks.hub import read_hub

        rows = read_hub(source, split=split)
    bad: list[str] = []
    problems = _distinct(_from_rows(rows, source, names, require_answer, or_tests, bad), source, bad)
    _report(bad, source, on_bad)
    if not problems:
        raise DataError(f"{source} holds no problem that can be used.")
    if size is None or size >= len(problems):
        return problems
    kept = np.sort(np.random.default_rng(seed).choice(len(problems), size=size, replace=False))
    return [problems[i] for i in kept]


def _from_rows(
    rows: Sequence[Row], source: str, names: col.Names, require_answer: bool, or_tests: bool, bad: list[str]
) -> Iterator[tuple[str, Problem]]:
    """Place and problem of every usable row; what is wrong with the others goes to ``bad``."""
    tests_will_do = or_tests and any(row.data.get("tests") for row in rows)
    chosen = col.choose(rows, source, names, require_answer=require_answer and not tests_will_do)
    if names.prompt is None:
        refuse_left_out(rows, source, chosen.prompt)
    for row in rows:
        tested = bool(row.data.get("tests")) and (or_tests or not require_answer)
        try:
            text = col.read_prompt(row, chosen.prompt)
            ident = col.read_id(row, chosen.ident) if chosen.ident else prompt_id(text)
            answer = _answer(row, chosen.answer, tested)
        except DataError as error:
            bad.append(str(error))
            continue
        if answer is None and require_answer and not tested:
            bad.append(f"{row.where}: it has neither an answer nor tests.")
            continue
        extra = {k: v for k, v in row.data.items() if k not in {chosen.prompt, "answer"}}
        yield row.where, Problem(id=ident, prompt=text, answer=answer, extra=extra)


def _answer(row: Row, column: str | None, tested: bool) -> str | None:
    """The gold; None where there is no column for it, or nothing in it beside ``tests``."""
    if column is None or (tested and not str(col.field(row.data, column) or "").strip()):
        return None
    return col.read_answer(row, column)


def _report(bad: Sequence[str], source: str, on_bad: Callable[[str], None] | None) -> None:
    if on_bad is not None:
        for text in bad:
            on_bad(text)
    elif bad:
        more = f" And {len(bad) - 5} more rows cannot be used." if len(bad) > 5 else ""
        raise DataError(f"{source}, {' '.join(bad[:5])}{more} Correct these rows or leave them out.")


def prompt_id(prompt: str | Messages) -> str:
    """First 16 hex digits of the SHA-1 of the prompt (of its JSON, for messages)."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    return hashlib.sha1(text.encode("utf-8"), usedforsecurity=False).hexdigest()[:16]


def unlike(problem: Problem, seen: Problem) -> str:
    """What else stands beside the prompt of ``seen``, in words; empty where nothing that is checked does."""
    if problem.answer != seen.answer:
        return f"another answer, {problem.answer!r} against {seen.answer!r}"
    return "" if problem.extra.get("tests") == seen.extra.get("tests") else "other tests"


def _distinct(numbered: Iterable[tuple[str, Problem]], source: str, bad: list[str]) -> list[Problem]:
    """Drop exact repeats (id, prompt, answer and tests), counted in a warning; any other repeated id goes to ``bad``."""
    first: dict[str, tuple[str, Problem]] = {}
    repeats = 0
    for where, problem in numbered:
        seen_where, seen = first.setdefault(problem.id, (where, problem))
        if seen is problem:
            continue
        different = unlike(problem, seen)
        if problem.prompt == seen.prompt and not different:
            repeats += 1
        elif problem.id != prompt_id(problem.prompt):
            bad.append(f"{where}: its id {problem.id!r} is also that of {seen_where}; every problem needs its own.")
        else:
            bad.append(
                f"{where}: it has the prompt of {seen_where} but {different}; two problems of one prompt need ids of their own."
            )
    if repeats:
        logger.warning(
            "%s: %d repeated problems (same prompt and answer) left out, %d kept", source, repeats, len(first)
        )
    return [problem for _, problem in first.values()]


def to_rows(
    problems: Sequence[Problem], *, template: str | None = None, system: str | None = None, chat: bool = False
) -> list[dict[str, Any]]:
    """Rows for ``datasets.Dataset.from_list``: ``prompt`` (rendered), ``answer``, ``id`` and the columns of ``extra`` that a
    dataset can hold (:func:`dopr.tasks.passed_on.passed_on`).
    """
    columns, _ = passed_on(columns_of(problems))
    return [
        {"prompt": render_prompt(p, template, system, chat), "answer": p.answer, "id": p.id}
        | {name: values[i] for name, values in columns.items()}
        for i, p in enumerate(problems)
    ]


def columns_of(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """What each problem has beside prompt and answer, the code verifier's ``tests`` as JSON text where they are lists or objects
    (None where JSON cannot hold them).
    """
    return [
        p.extra | {"tests": structured_text(p.extra["tests"])}
        if isinstance(p.extra.get("tests"), list | dict)
        else p.extra
        for p in problems
    ]


def split_holdout(problems: Sequence[Problem], n: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """``(train, held_out)`` with ``n`` held out: the ids with the smallest hashes, whatever the order of ``problems``.

    Of problems with the same prompt (but for white space) the one whose id sorts first stands for all: a prompt that comes often is held out as likely
    as any other (fewer than ``n``, if there are fewer prompts), and its other copies are left among the first.

    Raises:
        ConfigError: ``n`` is negative or leaves nothing to train on.
    """
    if not 0 <= n < max(len(problems), 1):
        raise ConfigError(
            f"{n} problems to hold out of {len(problems)} cannot be: it must be at least 0 and leave one to train on. "
            "Hold out fewer, or give a separate file to evaluate on."
        )

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()

    names: dict[str, str] = {}  # by wording
    for problem in problems:
        wording = problem.wording
        names[wording] = min(names.get(wording, problem.id), problem.id)
    held = set(sorted(names.values(), key=rank)[:n])
    return [p for p in problems if p.id not in held], [p for p in problems if p.id in held]
