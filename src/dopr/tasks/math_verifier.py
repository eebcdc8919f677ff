"""The maths verifier: one stated answer per completion, compared exactly where that is enough, else by math-verify in
worker processes with a hard time limit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from dopr.errors import RewardError, suggest
from dopr.tasks.answers import gold_from_text
from dopr.tasks.final_answer import RULES, find_answer
from dopr.tasks.math_equal import alternatives, canonical, prepared, quick
from dopr.tasks.pool import Failure, WorkerPool
from dopr.tasks.verifiers import Judgement, Verifier

#: The longest time limit of one completion. Answers take milliseconds; a policy must not hold up training with integrals.
MOST_SECONDS = 10.0


def math(rules: str = "", *, timeout: float) -> Verifier:
    """The completion's answer equals the gold (:mod:`dopr.tasks.final_answer`, :mod:`dopr.tasks.math_equal`,
    :mod:`dopr.tasks.math_judge`).

    Args:
        rules: where an answer may stand: some of ``boxed``, ``final`` and ``last``, separated by commas; all by default.
        timeout: seconds that one completion may take; never more than :data:`MOST_SECONDS`.

    Raises:
        RewardError: math-verify is missing, or an unknown rule.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise RewardError("The reward 'math' needs math_verify. Run: pip install 'dopr[math]'.")
    chosen = tuple(rule.strip() for rule in rules.split(",")) if rules else RULES
    for rule in chosen:
        if rule not in RULES:
            raise RewardError(f"The reward 'math:{rules}' names the rule {rule!r}. {suggest(rule, RULES)}")
    timeout = min(timeout, MOST_SECONDS)
    pool = WorkerPool("dopr.tasks.math_judge:judge", timeout=timeout)
    # math-verify's own limit on each step lets a slow item end by itself; the pool's is on all of it, and is hard.
    step = max(1, int(timeout / 2))

    def judge(texts: Sequence[str], golds: Sequence[str]) -> list[Judgement]:
        verdicts: list[Judgement] = [None] * len(texts)
        hard: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
        for i, (text, gold) in enumerate(zip(texts, golds, strict=True)):
            wanted = alternatives(gold_from_text(gold))
            stated = find_answer(text, chosen) if wanted else None
            if stated is None:
                verdicts[i] = 0.0 if wanted else None
                continue
            parts = tuple(prepared(part) for part in stated.parts)
            verdict = _easily(wanted, parts)
            if verdict is None:
                hard.setdefault((wanted, parts), []).append(i)
            else:
                verdicts[i] = float(verdict)
        asked = list(hard)
        answers = pool.run(
            [[list(wanted), _asked(parts), step] for wanted, parts in asked], keys=[wanted[0] for wanted, _ in asked]
        )
        for (wanted, parts), answer in zip(asked, answers, strict=True):
            for i in hard[wanted, parts]:
                verdicts[i] = _verdict(answer, parts)
        return verdicts

    def extract(text: str) -> str | None:
        stated = find_answer(text, chosen)
        return None if stated is None else ",".join(map(canonical, stated.parts))

    return Verifier("math", judge, extract, boxed)


def _easily(wanted: tuple[str, ...], parts: tuple[str, ...]) -> bool | None:
    """The verdict where no algebra is needed."""
    if len(parts) == 1:
        verdicts = [quick(gold, parts[0]) for gold in wanted]
        return True if True in verdicts else None if None in verdicts else False
    each = [[quick(gold, part) for gold in wanted] for part in parts]
    if all(True in row for row in each):
        return True
    # Several parts that are not all the gold can only be right as a list.
    return None if any("," in gold or "\\pm" in gold or "\\text" in gold for gold in wanted) or any(
        None in row for row in each
    ) else False  # fmt: skip


def _asked(parts: tuple[str, ...]) -> list[str]:
    """What a worker compares: the only part; or the parts as a list, then each by itself."""
    return [parts[0]] if len(parts) == 1 else [", ".join(parts), *parts]


def _verdict(answer: object, parts: tuple[str, ...]) -> Judgement:
    if answer is None or isinstance(answer, Failure):
        return answer
    if answer == "late":
        return Failure.TIMEOUT
    assert isinstance(answer, list)
    return float(answer[0] or (len(parts) > 1 and all(answer[1:])))


def boxed(gold: str) -> str:
    """A completion that states ``gold``, of several accepted answers the first."""
    text = gold_from_text(gold)
    return f"\\boxed{{{next(iter(alternatives(text)), text)}}}"
