"""The named verifiers: what each reads in a completion, and when that equals the gold answer.

==========  ==========================================================================================================
math        the completion's stated answer (boxed, announced, or last) equals the gold, by :mod:`dopr.tasks.math_verifier`;
            ``math:boxed`` or ``math:boxed,final`` read only what is boxed, or boxed or announced
number      the last number in the completion equals the gold, or one is the other rounded as for ``math``; ``$``, ``%`` and
            thousands separators mean nothing
exact       the completion, stripped, is the gold
world       the text after the last ``=`` (all of it where there is none), stripped, is the gold (packaged worlds)
choice      the letter A-J of the last ``\\boxed{X}``, "answer is X" or "option: X"; else of the last ``(X)`` or "X is correct"; else one that
            begins a line. A second letter joined to it ("A or B") makes it no answer
regex:P     the last match of the pattern P: its last group that took part (all of it without groups), stripped, is the gold
code        the completion's program passes every test of the column ``tests`` (:mod:`dopr.tasks.code_verifier`);
            ``code:partial`` gives the share of them
gym         reasoning-gym's own score of the text in ``<answer>`` tags; without tags the better of the whole text and its
            last line. It may be partial, between 0 and 1
==========  ==========================================================================================================

Each gives 1.0 or 0.0 (gym: a score) per completion, and None where the gold is missing or cannot be read. A completion
that takes the verifier too long is wrong (0.0) and counted under ``timeouts``.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dopr.errors import RewardError
from dopr.tasks.answers import gold_from_text, gold_text, last_number, number_text, parse_number, structured_text
from dopr.tasks.guard import COUNTERS
from dopr.tasks.pool import Failure, WorkerPool
from dopr.tasks.quantities import nearly

Judgement = float | None | Failure
#: (texts, golds), of one length, to a judgement each.
JudgeBatch = Callable[[Sequence[str], Sequence[str]], list[Judgement]]


class Verifier:
    """A named verifier, callable as a TRL reward function.

    Attributes:
        extract: canonical answer of a completion (equal answers give equal texts), None where it has none; for maj@n.
        example: a right completion for a gold answer in the form that the verifier wants; None where that is not known.
        column: the data column with the gold.
        counts: completions ``scored`` and ``unscorable``; of the scored, ``timeouts``; of the unscorable, ``errors``.
    """

    def __init__(
        self,
        name: str,
        judge: JudgeBatch,
        extract: Callable[[str], str | None],
        example: Callable[[str], str] | None,
        *,
        column: str = "answer",
    ) -> None:
        self.__name__ = name
        self.extract, self.example, self.column = extract, example, column
        self.counts = dict.fromkeys(COUNTERS, 0)
        self._judge = judge

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Rewards of ``completions`` (texts, or conversations) against the gold column.

        Raises:
            RewardError: the gold column is not among ``columns``.
        """
        if self.column not in columns:
            raise RewardError(
                f"The reward {self.__name__!r} needs the data column {self.column!r}; there are "
                f"{', '.join(sorted(columns)) or 'none'}. Add it, or use a reward function of your own."
            )
        golds = [_gold(value, structured=self.column != "answer") for value in columns[self.column]]
        asked = [(text_of(c), g) for c, g in zip(completions, golds, strict=True) if g is not None]
        distinct = list(dict.fromkeys(asked))  # rollouts of one group often agree
        judged = dict(zip(distinct, self._judge([t for t, _ in distinct], [g for _, g in distinct]), strict=True))
        return [
            self._count(None if gold is None else judged[text_of(completion), gold])
            for completion, gold in zip(completions, golds, strict=True)
        ]

    def _count(self, judgement: Judgement) -> float | None:
        reward = judgement if not isinstance(judgement, Failure) else 0.0 if judgement is Failure.TIMEOUT else None
        if isinstance(judgement, Failure):
            self.counts["timeouts" if judgement is Failure.TIMEOUT else "errors"] += 1
        self.counts["unscorable" if reward is None else "scored"] += 1
        return reward


def text_of(completion: Any) -> str:
    """Text of a completion: itself, or the content of its last message (text parts joined)."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return content or ""


def _gold(value: Any, *, structured: bool) -> str | None:
    if isinstance(value, str):
        return value if value.strip() else None
    if structured and isinstance(value, list | dict):
        return structured_text(value)
    try:
        return gold_text(value)
    except ValueError:
        return None


def _each(judge: Callable[[str, str], Judgement]) -> JudgeBatch:
    return lambda texts, golds: [judge(text, gold) for text, gold in zip(texts, golds, strict=True)]


def _same(extract: Callable[[str], str | None], text: str, gold: str) -> float:
    return float(extract(text) == gold.strip())


def number() -> Verifier:
    """The last number of the completion equals the gold number."""

    def extract(text: str) -> str | None:
        value = last_number(text)
        return None if value is None else number_text(value)

    def judge(text: str, gold: str) -> float | None:
        wanted = parse_number(gold_from_text(gold))
        if wanted is None:
            return None
        given = last_number(text)
        return float(given is not None and nearly(wanted, given))

    return Verifier("number", _each(judge), extract, gold_from_text)


def exact() -> Verifier:
    """The completion is the gold, white space around it aside."""
    return Verifier("exact", _each(partial(_same, str.strip)), str.strip, str)


def world() -> Verifier:
    """The text after the last ``=`` is the gold: the form of the packaged worlds."""

    def extract(text: str) -> str:
        return text.rpartition("=")[2].strip()

    return Verifier("world", _each(partial(_same, extract)), extract, "={}".format)


# Bold type, brackets, quotes, wrappers and words before a letter; at most twenty, which keeps the time linear.
_WRAPPER = r"[*_\s($:\[\"'`]|\\\(|\\[,;:! ]|\\(?:text(?:bf)?|math(?:rm|bf)|boxed)\{"
_BEFORE = (
    rf"(?:{_WRAPPER}|(?i:option|choice)\s"
    r"|(?i:therefore|thus|hence|then|clearly|indeed|actually|either|i\s(?:think|believe)),?\s){0,20}"
)
# A second letter joined to the first, which makes both no answer. After a comma or "and" it may begin another clause ("B, A is too small").
_AFTER = r"(?:[)\]}*_$\"'`\s]|\\[,;:! )]|\\text\s?\{){0,12}+"
_WITHIN = rf"(?:{_WRAPPER}|[)}}]|(?i:maybe|perhaps|possibly|option|choice)\s){{0,12}}+"
_OTHER = r"(?:[A-HJ](?![\w'\u2019])|I(?![\w'\u2019]|\s[a-z])|[a-j](?=\)|\s?\}))"
_NO_CLAUSE = r"(?!\)?[*_]{0,2}:?\s{1,9}(?!(?:because|since|as|both|only|but|depending)\b)[a-z])"
_JOINED = (
    rf"(?:{_AFTER}(?:[,;]?\s?\bor\b|[/&]|\\(?:&|cup|cap|lor|vee)){_WITHIN}{_OTHER}"
    rf"|(?:{_AFTER}(?:[,;]?\s?\b(?:and|or)\b|[,;]){_WITHIN}{_OTHER}){{1,9}}{_NO_CLAUSE}"
    rf"|(?:(?:{_WRAPPER}|[).}}]){{0,12}}+{_OTHER}){{1,9}}[)\s$]{{0,3}}\}})"
)
_LARGE = (
    r"(?:[A-HJ]|I(?!\s(?!(?:because|since|as|and|or|which)\b)[a-z]))(?![\w'\u2019])"  # the pronoun aside: "I think"
)
_REFUSED = (  # "Option: A is wrong"
    r"(?!\)?[*_]{0,2}\s?(?:(?:is|was|seems|would\sbe)\s(?:not|wrong|incorrect|false|impossible|ruled|eliminated|invalid|too)\b"
    r"|[-\u2013\u2014:]\s(?:wrong|incorrect|false)\b))"
)
_STATED = re.compile(
    rf"(?:\\(?:boxed|fbox)\s?\{{{_BEFORE}(?P<boxed>[A-Ja-j])"
    rf"(?=[)}}.:]|{_JOINED}|\s(?!\s*(?:,|=|\\cup|\\cap|\\text\s?\{{\s*(?:and|or))))"
    r"|(?i:answer(?:\sto\s(?:this|the|that)\s(?:question|problem))?)[*_\s]{0,9}(?i:is|:|(?:should|must|would)\sbe)"
    rf"(?:{_BEFORE}(?:(?P<large>{_LARGE}){_REFUSED}|(?P<small>[a-j])(?=\)|[*}}$]{{0,9}}\s*(?:[.,;!]|$)))"
    # A value and its letter: "42, which is option B."
    r"|\s(?:(?!\b(?:not|than|because|if)\b|n't|[.!?]\s)(?:[^,\n]|,(?=\d))){1,40},\s"
    r"which\s(?:is|corresponds\sto|matches)\s(?i:option|choice)\s[*($]{0,4}(?P<valued>[A-J])(?=[*)$]{0,4}\s*(?:[.!]|$)))"
    rf"|<answer>{_BEFORE}(?P<tag>[A-Ja-j])(?=[).:*<\s]|{_JOINED})"
    rf"|\b(?i:option|choice)[*_]{{0,2}}\s?(?i:is|:){_BEFORE}(?P<named>{_LARGE}){_REFUSED})"
    rf"(?P<joined>{_JOINED})?",
    re.MULTILINE,
)
# Less sure: a letter in brackets, unless they are a function's; and what is said to be right, unless it is a clause of a longer thought.
_MENTIONED = re.compile(
    r"(?<![A-Za-z])\((?P<bracketed>[A-Ja-j])\)"
    r"|(?<!nor )(?<!If )(?<!if )\b(?P<right>[A-J])\)?\*{0,2} (?i:is (?:the answer|(?:the )?(?:correct|right|best)(?: (?:answer|choice|option))?))"
    r"\*{0,2}(?=[.!,\n]|\s(?:because|since|as)\b|$)",
    re.MULTILINE,
)
_LONE = re.compile(r"^[ \t]*[*(]*([A-J])[*]*(?:[).:]|[ \t]*$)", re.MULTILINE)
# The last line, where no other line is such a heading of another option.
_OPTION = re.compile(r"^[ \t]*[*_(]*(?i:option|choice)[ \t]\(?([A-J])[)*_.]*[ \t]*$", re.MULTILINE)
_LONE_SMALL = re.compile(r"\s*\(?([a-j])[).]?\s*")


def choice() -> Verifier:
    """The chosen letter, A to J, is the gold's."""

    def extract(text: str) -> str | None:
        text = text.rpartition("</think>")[2]
        matches = list(_STATED.finditer(text))
        if matches and matches[-1]["joined"]:
            return None
        stated = [match[match.lastgroup or 0] for match in matches]
        options = list(_OPTION.finditer(text))
        if len({match[1] for match in options}) > 1 or (options and text[options[-1].end() :].strip()):
            options = []
        lines = _LONE.findall(text)
        if lines[:3] == ["A", "B", "C"]:  # the options themselves, said again
            lines = []
        found = stated or [match[match.lastgroup or 0] for match in _MENTIONED.finditer(text)]
        found = found or [match[1] for match in options] or lines
        if not found:
            lone = _LONE_SMALL.fullmatch(text)
            return lone[1].upper() if lone else None
        return str(found[-1]).upper()

    def judge(text: str, gold: str) -> float | None:
        wanted = extract(gold)
        return None if wanted is None else float(extract(text) == wanted)

    return Verifier("choice", _each(judge), extract, "The answer is ({})".format)


def by_regex(pattern: str, *, timeout: float) -> Verifier:
    """What the last match of ``pattern`` holds is the gold.

    Patterns run with the ``regex`` package (which transformers brings along), given up after ``timeout`` seconds; where
    it is missing, with the standard library's ``re``, which cannot be interrupted.

    Raises:
        RewardError: the pattern is not valid.
    """
    limited = importlib.util.find_spec("regex") is not None
    engine: Any = importlib.import_module("regex") if limited else re
    try:
        compiled = engine.compile(pattern)
    except engine.error as error:
        raise RewardError(f"The pattern of the reward 'regex:{pattern}' is not valid: {error}. Correct it.") from None

    def search(text: str) -> str | None:
        found = None
        for found in compiled.finditer(text, timeout=timeout) if limited else compiled.finditer(text):  # noqa: B007
            pass
        if found is None:
            return None
        groups = [group for group in found.groups() if group is not None]
        return str(groups[-1] if groups else found[0]).strip()

    def extract(text: str) -> str | None:
        try:
            return search(text)
        except TimeoutError:
            return None

    def judge(text: str, gold: str) -> Judgement:
        try:
            return _same(search, text, gold)
        except TimeoutError:
            return Failure.TIMEOUT

    return Verifier("regex", _each(judge), extract, None)


def gym(*, timeout: float) -> Verifier:
    """reasoning-gym's score of the answer, in worker processes: several of its tasks compute with what they are given."""
    _require("reasoning_gym", "gym", "gym")
    pool = WorkerPool("dopr.tasks.verifiers:judge_gym", timeout=timeout)

    def judge(texts: Sequence[str], golds: Sequence[str]) -> list[Judgement]:
        return pool.run([[gold, _gym_answers(text)] for text, gold in zip(texts, golds, strict=True)])

    def extract(text: str) -> str:
        return _gym_answers(text)[-1]

    return Verifier("gym", judge, extract, "<answer>{}</answer>".format, column="gym_entry")


def _gym_answers(text: str) -> list[str]:
    """Texts that may be meant as the answer, the likeliest last."""
    tagged = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    if tagged:
        return [tagged[-1].strip()]
    whole = text.strip()
    return list(dict.fromkeys([whole, whole.rpartition("\n")[2].strip()]))


def judge_gym(item: Any) -> float | None:
    """Runs in a worker: ``[gym_entry, answers]`` to the best score."""
    import reasoning_gym  # noqa: F401 - loaded while the worker starts, outside the time limit of an item

    from dopr.tasks.gym import score

    return None if item is None else score(*item)


def _require(module: str, reward: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise RewardError(f"The reward {reward!r} needs {module}. Run: pip install 'dopr[{extra}]'.")
