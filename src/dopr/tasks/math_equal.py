r"""Whether two written answers are equal, so far as that needs no algebra: numbers, ratios, words, and forms that cannot be.

:func:`quick` takes microseconds and runs in any process; what it leaves open :mod:`dopr.tasks.math_judge` decides.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache

from dopr.tasks.answers import number_text
from dopr.tasks.pool import WorkerPool
from dopr.tasks.quantities import OTHER_NUMBER, equal, read_quantity, read_ratio, simplified, units_of

_LONGEST = 2_000  # characters of an answer that are read, and brackets within brackets
_DEEPEST = 60

_WRAPPERS = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|rm|bf)\s*\{([^{}]*)\}")
_BOLD = re.compile(
    r"\\(?:textbf|mathbf|boldsymbol|bold|emph|textit|displaystyle|mathbf)\s*(?:\{([^{}]*)\}|(?![A-Za-z{]))"
)
_ENDS = re.compile(r"(?:\s|[.,;]|\\[,;:! ])+\Z|\A(?:\s|\\[,;:! ])+|\\\Z")
_OUTER = re.compile(
    r"\A\s*(?:\{(?P<d>[^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|\((?P<e>\s*[0-9.]+\s*)\)|\$\$?(?P<a>[^$]*)\$\$?|\\\((?P<b>.*)\\\)|\\\[(?P<c>.*)\\\])\s*\.?\s*\Z",
    re.DOTALL,
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'’-]*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")
# Letters that make no word in any order: without a vowel, or only the first three.
_PRODUCT = re.compile(r"[b-df-hj-np-tv-z]+|[abc]+")
_OPTION = re.compile(r"\(?\s*([A-Ja-j])\s*\)?\.?")
_OPTION_FIRST = re.compile(r"(?:[Oo]ption\s+|(?=\(?[A-J][).:]))\(?([A-J])(?![A-Za-z0-9])")
_OPTION_MARKED = re.compile(r"(?<![A-Za-z0-9])\(?[A-J](?![A-Za-z0-9'’])")
#: One value in two forms: 1/4 (or 0.25).
_ASIDE = re.compile(r"(.+?)(?:\s|\\[,;:! ])*\(\s*(?:\\(?:text|mbox)\s*\{\s*)?or(?![A-Za-z])\s*\}?\s*([^()]+)\)")
_ALTERNATIVES = re.compile(r"\\(?:text|mbox)\s*\{\s*OR\s*\}|\bOR\b")
_LABELLED = re.compile(
    r"(?:\\(?:text|mathrm|mbox|textrm)\s*\{\s*)?\(([A-Ja-j])\)\s*\}?[\s~\\:]*(?:q?quad\b)?\s*(?=[0-9$\\-])(.+)"
)
_MARKS = re.compile(r"[(\[{)\]},]|(?<![<>!:=])(?<!\\not)=(?!=)|\\in(?![A-Za-z])")
_APART = re.compile(
    r"[0-9]\}?\s*(?:\\(?:text|mathrm|textrm|mbox)\s*\{[^{}]*[A-Za-z]{2}[^{}]*\}|[A-Za-z]{2}[A-Za-z ,]*(?=\s))\s*[0-9]"
)
_DOUBT = re.compile(r"\b(?:or|maybe|perhaps|possibly|either|not|n't|isn't|wrong|unknown)\b", re.IGNORECASE)
#: What joins the parts of a list in words.
JOINED = re.compile(
    r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])", re.IGNORECASE
)
_SIDE_BY_SIDE = re.compile(
    r"(?<![\\0-9_^{])[0-9]+(?:\.[0-9]+)?(?:\s|(?<!\\)\\(?:[,;:! ]|q?quad(?![A-Za-z])))+[0-9]+(?![0-9]*\s*/)"
)
_RELATION = re.compile(r"[<>≤≥≠]|\\(?:leq?|geq?|lt|gt|neq?)(?![A-Za-z])")
_BASE = re.compile(r"[0-9]\s*_\s*\{?\s*([0-9]+)\s*\}?")


def prepared(text: str) -> str:
    """A gold or an answer without what only sets it: dollars around it, bold type, braces or ``\\text{}`` around all of it."""
    before = None
    while text != before:
        before = text
        text = _ENDS.sub("", _BOLD.sub(r"\1", text.strip())) if "\\" in text else text.strip().rstrip(".,;")
        match = _OUTER.match(text)
        if match is not None:
            inside = next(group for group in match.groups() if group is not None)
            if "\\(" not in inside and "\\[" not in inside:
                text = inside.strip()
        worded = _WRAPPERS.fullmatch(text)
        if worded is not None and read_quantity(worded[1]) is not None:
            text = worded[1].strip()
    return text


@lru_cache(maxsize=8192)
def alternatives(gold: str) -> tuple[str, ...]:
    """The golds of which one is enough: what a capital OR separates."""
    return tuple(part for part in (prepared(p) for p in _ALTERNATIVES.split(gold)) if part)


def quick(gold: str, answer: str) -> bool | None:
    """Whether ``answer`` equals ``gold``; None where only algebra can tell."""
    if not answer or len(answer) > max(_LONGEST, 2 * len(gold)) or _depth(answer) > max(_DEEPEST, _depth(gold)):
        return False
    if _squeezed(gold) == _squeezed(answer):
        return True
    if (right := _right_side(answer)) and not _right_side(gold):
        doubted = _DOUBT.search(JOINED.sub("", answer)) and not _DOUBT.search(gold)
        return False if doubted or _broken_chain(answer) else quick(gold, right)
    if aside := _ASIDE.fullmatch(answer):
        both = [quick(gold, aside[1]), quick(gold, aside[2])]
        if None not in both:
            return all(both)
    labelled = _LABELLED.fullmatch(answer)  # an option with its letter and its content: (C) 32
    if labelled is not None and not _LABELLED.fullmatch(gold):
        return quick(gold, labelled[1] if _OPTION.fullmatch(_unwrapped(gold)) else labelled[2])
    words = _words_of(gold)
    if words is not None:
        plain = _unwrapped(answer)
        option = (_OPTION.fullmatch(plain) or _only_option(plain)) if len(words) == 1 else None
        return words == (option[1].lower() if option else _words_of(answer) or plain.casefold())
    if _is_anagram(_unwrapped(gold), _unwrapped(answer)):
        return False
    if (ratio := read_ratio(gold)) is not None and (other := read_ratio(answer)) is not None:
        return ratio == other
    wanted = read_quantity(gold)
    if wanted is not None:
        given = read_quantity(answer)
        if given is not None:
            return equal(wanted, given)
    return False if _beside_the_point(gold, answer) else None


def canonical(answer: str) -> str:
    """One text for answers that are plainly the same, for votes: ``x = 5`` and ``5``, ``\\dfrac12`` and ``\\frac{1}{2}``, ``(B)`` and ``B``."""
    text = prepared(answer)
    text = _right_side(text) or text
    quantity = read_quantity(text)
    if quantity is not None:
        return number_text(quantity.value * quantity.scale) + "%" * quantity.percent
    option = _OPTION.fullmatch(_unwrapped(text))
    return option[1].upper() if option else _words_of(text) or "".join(_squeezed(text).split())


def _only_option(text: str) -> re.Match[str] | None:
    """``(C) Blue``, ``C. 42`` or ``Option C``, where no other option is named."""
    return _OPTION_FIRST.match(text) if len(_OPTION_MARKED.findall(text)) < 2 else None


def _is_anagram(gold: str, answer: str) -> bool:
    """Whether two names, orders or short words differ in their order alone: ``BAC`` and ``ABC``, ``saw`` and ``was``, which are products to
    math-verify. ``ab`` and ``yx`` stay products.
    """
    gold_, answer_ = gold.casefold(), answer.casefold()
    return (
        gold_ != answer_ and sorted(gold_) == sorted(answer_)
        and _NAME.fullmatch(gold) is not None and _NAME.fullmatch(answer) is not None
        and not (_PRODUCT.fullmatch(gold) and _PRODUCT.fullmatch(answer))
    )  # fmt: skip


def _squeezed(text: str) -> str:
    plain = _WRAPPERS.sub(r"\1", simplified(text)).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return re.sub(r"(?<![0-9]) | (?![0-9])", "", " ".join(plain.replace("$", "").split())).rstrip(".")


def _unwrapped(text: str) -> str:
    return " ".join(_WRAPPERS.sub(r"\1", simplified(text)).split()).strip(" .")


def _right_side(text: str) -> str | None:
    """What stands right of the last ``=`` or ``\\in`` of a statement about a variable, a name or a tuple of them."""
    depth, cut = 0, 0
    for match in _MARKS.finditer(text):
        mark = match[0]
        depth += (mark in "([{") - (mark in ")]}")
        if mark == "," and not depth:
            return None
        if mark in ("=", "\\in") and not depth:
            cut = match.end()
    named = cut and re.search(
        r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z]{2})|\\(?:alpha|beta|gamma|theta|lambda|mu|omega|phi)\b|\A\s*\\text\s*\{[A-Za-z' ]+\}\s*=\Z",
        text[:cut],
    )
    return prepared(text[cut:]) if named else None


@lru_cache(maxsize=8192)
def _words_of(text: str) -> str | None:
    """``text`` in small letters where it is words or an option's letter rather than mathematics; else None."""
    plain = _unwrapped(text)
    option = _OPTION.fullmatch(plain)
    if option is not None and ("(" in plain or "\\text" in text):
        return option[1].lower()
    if not _WORDS.fullmatch(plain):
        return option[1].lower() if option else None
    longest = max(map(len, re.findall(r"[A-Za-z]+", plain)))
    return plain.casefold() if longest >= 4 or (longest >= 2 and "\\text" in text) else None


def _beside_the_point(gold: str, answer: str) -> bool:
    """Forms that math-verify would read as something simpler than what is written."""
    ours, theirs = units_of(gold), units_of(answer)
    if ours and theirs and not ours & theirs:
        return True
    if not _DOUBT.search(gold) and _DOUBT.search(JOINED.sub("", answer)):
        return True
    if any(re.search(r"[0-9]", inside) for inside in _WRAPPERS.findall(answer)) and not _WRAPPERS.search(gold):
        return True
    if OTHER_NUMBER.search(answer) and not OTHER_NUMBER.search(gold):
        return True
    if _APART.search(JOINED.sub(",", answer)) and read_quantity(gold) is not None:  # two numbers, each with its words
        return True
    if "?" in answer and "?" not in gold:
        return True
    if "\\begin" not in answer and _SIDE_BY_SIDE.search(simplified(answer)):
        return True
    if (base := _BASE.search(gold)) and (other := _BASE.search(answer)) and base[1] != other[1]:
        return True
    if _RELATION.search(answer) and read_quantity(gold) is not None:
        return True
    return _broken_chain(answer) or {_bracket(gold), _bracket(answer)} == {"set", "tuple"}


def _broken_chain(answer: str) -> bool:
    """Whether it equates numbers that are far from equal: ``x = 4 = 5``."""
    sides = [read_quantity(side) for side in answer.split("=")] if answer.count("=") > 1 else []
    numbers = [side.value for side in sides if side is not None and not side.percent]
    return any(abs(a - b) * 100 > max(abs(a), abs(b)) for a, b in itertools.pairwise(numbers))


def _bracket(text: str) -> str:
    """Whether a list stands between braces or between parentheses."""
    plain = simplified(text)
    if "," not in plain:
        return ""
    return "set" if plain.startswith("\\{") else "tuple" if re.fullmatch(r"[(\[][^()\[\]]*[)\]]", plain) else ""


def _depth(text: str) -> int:
    depth = deepest = 0
    for c in text:
        if c in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif c in ")]}":
            depth -= 1
    return deepest


def reading(golds: Sequence[str], *, timeout: float) -> list[str]:
    """How each gold is read: number, ratio, text, what math-verify makes of it (expression, set, interval, ...), or unread."""
    kinds = {gold: _plain_kind(gold) for gold in golds}
    hard = [gold for gold, kind in kinds.items() if not kind]
    pool = WorkerPool("dopr.tasks.math_judge:kind", timeout=timeout)
    for gold, kind in zip(hard, pool.run(hard), strict=True):
        kinds[gold] = kind if isinstance(kind, str) else "unread"
    pool.close()
    return [kinds[gold] for gold in golds]


def _plain_kind(gold: str) -> str:
    text = prepared(gold)
    if read_quantity(text) is not None:
        return "number"
    return "ratio" if read_ratio(text) else "text" if _words_of(text) is not None else ""
