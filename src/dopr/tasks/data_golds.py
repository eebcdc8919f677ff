"""The golds of a problem file before their own verifier, for ``dopr data check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dopr.tasks import columns as col
from dopr.tasks.boxes import last_boxed
from dopr.tasks.data_findings import Finding, column_names, short
from dopr.tasks.math_equal import reading
from dopr.tasks.problems import Problem
from dopr.tasks.rewards import auto_reward, check_golds, needs_answer, reads_golds, resolve_rewards
from dopr.tasks.rows import Row


def check_gold_column(
    problems: Sequence[Problem], places: Sequence[str], chosen: col.Columns, reward: str, timeout: float, findings: list[Finding],
) -> tuple[str, bool, dict[str, int]]:  # fmt: skip
    """The reward's name, whether it was given the golds, and how it reads them; those that it rejects go to ``findings``."""
    where = {id(p): place for p, place in zip(problems, places, strict=True)}
    with_gold = [p for p in problems if p.answer is not None]
    name = reward
    if reward == "auto" and with_gold:
        name = auto_reward(with_gold)
    elif reward == "auto" and any(p.extra.get("tests") for p in problems):
        name = "code"
    lacking = chosen.answer is None and needs_answer([name])
    if lacking:
        there = f"none of {column_names(p.extra for p in problems)} is an answer ({', '.join(col.ANSWER_COLUMNS)})"
        findings.append(Finding("column", "all rows", "", f"{there}; name the one that is with --answer-column"))
    if lacking or name == "auto":
        return "", False, {}
    (verifier,) = resolve_rewards([name], timeout=timeout)
    unusable = {f.where for f in findings if f.kind == "gold"}
    rejected = check_golds([p for p in problems if where[id(p)] not in unusable], verifier)
    findings += [Finding("gold", where[id(problem)], problem.id, why) for problem, why in rejected]
    if name != "math":
        return name, reads_golds(verifier), {}
    bad = {id(problem) for problem, _ in rejected}
    kinds = reading([str(p.answer) for p in with_gold], timeout=timeout)
    for problem, kind in zip(with_gold, kinds, strict=True):
        if kind == "unread" and id(problem) not in bad:
            text = f"the gold {short(problem.answer)} is no mathematics that can be read"
            findings.append(Finding("unread", where[id(problem)], problem.id, text))
    return name, True, dict(Counter(kinds).most_common())


def extraction(rows: Sequence[Row], answer: str | None) -> dict[str, int]:
    """Golds by where their answer stands."""
    if answer is None:
        return {}
    values = [value for row in rows if (value := col.field(row.data, answer)) is not None]
    texts = [value for value in values if isinstance(value, str)]
    marked = sum("####" in text for text in texts)
    boxed = sum("####" not in text and last_boxed(text) is not None for text in texts)
    counts = {"####": marked, "boxed": boxed, "as it stands": len(values) - marked - boxed}
    return {name: n for name, n in counts.items() if n}
