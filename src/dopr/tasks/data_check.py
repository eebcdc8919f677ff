"""What is wrong with a problem file, row by row, before anything is trained on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dopr.errors import DataError, NoSplitError
from dopr.tasks import columns as col
from dopr.tasks.answers import gold_text
from dopr.tasks.companions import describe, left_out
from dopr.tasks.data_findings import KINDS, Finding, column_names, short
from dopr.tasks.data_golds import check_gold_column, extraction
from dopr.tasks.known_sets import KNOWN_SETS
from dopr.tasks.overlap import folded, overlaps
from dopr.tasks.problems import Problem, prompt_id, unlike
from dopr.tasks.rows import Row, has_splits, is_data_path, read_path
from dopr.tasks.templates import Messages


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """The outcome of :func:`check_data`."""

    file: str
    rows: int
    columns: dict[str, str | None]
    """The columns taken for prompt, answer and id."""
    reward: str
    """The reward that the golds are for; empty where none could be chosen."""
    verified: bool
    """Whether it was given the golds: the form that a function of the user's wants is not known."""
    extraction: dict[str, int]
    """Golds by where their answer stands: ``####``, ``boxed`` or ``as it stands``."""
    reading: dict[str, int]
    """Golds by how the maths verifier reads them: number, text, expression, set, ..."""
    prompt_characters: dict[str, int]
    """Least, median and most characters of a prompt."""
    against: dict[str, Any] = field(default_factory=dict)
    """The other file: its name, rows, how many rows here repeat one of its, and which split was read, where it has some."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind that occurs."""
        found = Counter(f.kind for f in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}


def check_data(
    source: str,
    *,
    against: str | None = None,
    against_split: str | None = None,
    reward: str = "auto",
    names: col.Names | None = None,
    split: str = "train",
    most_characters: int = 20_000,
    least_overlap: float = 0.6,
    timeout: float = 10.0,
    progress: Callable[[str], None] = lambda stage: None,
) -> DataCheck:
    """Check the problems of ``source``: ids, repeats, golds, lengths, and what they share with ``against``.

    Args:
        source: file, directory or hub name, as for training.
        against: problems that must not be among them, an evaluation set as a rule; also a known set by its name (``math500``).
        against_split: its split; by default ``test`` where it has one, else ``split``.
        reward: verifier of the golds; ``auto`` chooses as training does.
        names: the columns, where they are not to be looked up.
        split: for sources with splits.
        most_characters: a longer prompt is a finding.
        least_overlap: share of an ``against`` problem's word 5-grams that makes a near-duplicate.
        timeout: seconds for one gold.
        progress: told what is being done.

    Raises:
        DataError: a file cannot be read, or has no prompt column.
        RewardError: an unknown verifier.
    """
    rows = _rows(source, split)
    names = names or col.Names()
    chosen = col.choose(rows, source, names, require_answer=False)
    findings: list[Finding] = []
    progress(f"{len(rows):,} rows")
    problems, places = _problems(rows, chosen, findings)
    if names.prompt is None:
        _parts(rows, chosen.prompt, findings)
    _repeats(problems, places, findings)
    texts = [_text(p.prompt) for p in problems]
    for problem, where, text in zip(problems, places, texts, strict=True):
        if len(text) > most_characters:
            findings.append(Finding("length", where, problem.id, f"{len(text):,} characters, over {most_characters:,}"))
    progress("golds")
    name, verified, how_read = check_gold_column(problems, places, chosen, reward, timeout, findings)
    other: dict[str, Any] = {}
    if against is not None:
        progress(f"comparing with {against}")
        other_rows, taken = _rows_against(against, against_split, split)
        other = _against(problems, places, texts, against, other_rows, least_overlap, findings)
        other |= {"split": taken} if taken else {}
    order = list(KINDS)
    sizes = np.array([len(text) for text in texts] or [0])
    return DataCheck(
        file=source, rows=len(rows), columns={"prompt": chosen.prompt, "answer": chosen.answer, "id": chosen.ident},
        reward=name, verified=verified, extraction=extraction(rows, chosen.answer), reading=how_read, against=other,
        prompt_characters={"least": int(sizes.min()), "median": int(np.median(sizes)), "most": int(sizes.max())},
        findings=sorted(findings, key=lambda f: order.index(f.kind)),
    )  # fmt: skip


def _rows(source: str, split: str) -> list[Row]:
    if source.startswith(("gym:", "world:")):
        raise DataError(
            f"{source} is generated together with its answers: there is no file to check. Give a file, a directory or a "
            "dataset on the hub as org/name."
        )
    if is_data_path(source):
        return read_path(Path(source).expanduser(), split=split)
    from dopr.tasks.hub import read_hub

    return read_hub(source, split=split)


def _rows_against(against: str, wanted: str | None, split: str) -> tuple[list[Row], str | None]:
    """Rows of what a file must not share problems with, and the split they are: its test split as a rule, whatever split
    is checked; None where it has none.
    """
    source = against
    if against in KNOWN_SETS and not Path(against).exists():
        known = KNOWN_SETS[against]
        source, wanted = known.hub, wanted or known.split
    taken = wanted or "test"
    try:
        rows = _rows(source, taken)
    except NoSplitError:
        if wanted is not None:
            raise
        taken = split
        rows = _rows(source, taken)
    return rows, taken if not is_data_path(source) or has_splits(Path(source).expanduser()) else None


def _problems(rows: Sequence[Row], chosen: col.Columns, findings: list[Finding]) -> tuple[list[Problem], list[str]]:
    """The usable problems and where they stand; what is wrong with the others goes to ``findings``."""
    problems, places = [], []
    for row in rows:
        try:
            prompt = col.read_prompt(row, chosen.prompt)
            ident = col.read_id(row, chosen.ident) if chosen.ident else prompt_id(prompt)
        except DataError as error:
            findings.append(Finding("row", row.where, "", _after_place(str(error), row.where)))
            continue
        answer = None
        value = None if chosen.answer is None else col.field(row.data, chosen.answer)
        if chosen.answer is not None and not (row.data.get("tests") and value in (None, "")):
            try:
                answer = gold_text(value)
            except ValueError as reason:
                findings.append(Finding("gold", row.where, ident, f"the gold cannot be checked: {reason}"))
        problems.append(Problem(id=ident, prompt=prompt, answer=answer, extra=row.data))
        places.append(row.where)
    return problems, places


def _parts(rows: Sequence[Row], prompt: str, findings: list[Finding]) -> None:
    for row in rows:
        if left := left_out(row, prompt):
            findings.append(Finding("part", row.where, "", describe(left, prompt)))


def _after_place(message: str, where: str) -> str:
    return message.removeprefix(f"{where}: ").rstrip(".")


def _text(prompt: str | Messages) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def _repeats(problems: Sequence[Problem], places: Sequence[str], findings: list[Finding]) -> None:
    ids: dict[str, int] = {}
    prompts: dict[str, int] = {}
    for i, (problem, where) in enumerate(zip(problems, places, strict=True)):
        same = prompts.setdefault(problem.wording, i)
        if same != i:
            first = problems[same]
            if not (different := unlike(problem, first)):
                findings.append(Finding("repeat", where, problem.id, f"the problem of {places[same]} again"))
            else:
                if first.answer != problem.answer:
                    different = f"the answer {short(problem.answer)} against {short(first.answer)}"
                findings.append(
                    Finding("conflict", where, problem.id, f"the prompt of {places[same]} with {different}")
                )
        known = ids.setdefault(problem.id, i)
        if problems[known].prompt != problem.prompt:
            findings.append(Finding("duplicate-id", where, problem.id, f"the id {problem.id!r} of {places[known]}"))


def _against(
    problems: Sequence[Problem], places: Sequence[str], texts: Sequence[str], against: str, rows: Sequence[Row], least: float,
    findings: list[Finding],
) -> dict[str, Any]:  # fmt: skip
    try:
        chosen = col.choose(rows, against, col.Names(), require_answer=False)
    except DataError:  # its advice is an option, and that names the column of the file that is checked
        there = f"{against} has the columns {column_names(row.data for row in rows)}, and none is a prompt"
        raise DataError(f"{there} ({', '.join(col.PROMPT_COLUMNS)}). Rename the one that is in {against}.") from None
    others, other_places = _problems(rows, chosen, [])
    other_texts = [_text(p.prompt) for p in others]
    whole = {folded(text): k for k, text in reversed(list(enumerate(other_texts)))}
    pairs = {pair.first: (pair.second, pair.overlap) for pair in overlaps(texts, other_texts, least=least)}
    exact = 0
    for i, text in enumerate(texts):
        same = whole.get(folded(text))
        if same is not None:
            exact += 1
            said = f"the problem of {against}, {other_places[same]}"
        elif i in pairs:
            said = f"{pairs[i][1]:.0%} of the word 5-grams of {against}, {other_places[pairs[i][0]]}"
        else:
            continue
        findings.append(Finding("overlap", places[i], problems[i].id, said))
    near = sum(f.kind == "overlap" for f in findings) - exact
    return {"file": against, "rows": len(rows), "same": exact, "near": near, "least_overlap": least}


def as_json(check: DataCheck) -> str:
    """The whole check as JSON."""
    record = {name: getattr(check, name) for name in
              ("file", "rows", "columns", "reward", "verified", "extraction", "reading", "prompt_characters", "against", "counts")}  # fmt: skip
    findings = [{"kind": f.kind, "where": f.where, "id": f.id, "text": f.text} for f in check.findings]
    return json.dumps(record | {"clean": not findings, "findings": findings}, indent=2)
