"""Answers as text: what a gold answer is, and which number or box a completion ends with.

Everything here is pure, uses no ``eval`` and takes time linear in the text, so it is safe on whatever a policy writes.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from dopr.errors import half_pair
from dopr.tasks.boxes import last_boxed
from dopr.tasks.quantities import read_quantity

#: A number with more characters than this is not read as a number. It keeps below Python's limit on digits per integer
#: (4,300) and bounds the time of one comparison.
MAX_NUMBER_CHARS = 4000
#: Larger powers of ten than this are not read as a number either: 1e999999999 would fill the memory.
MAX_EXPONENT = 400

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_EXPONENT = r"(?:[eE][+-]?[0-9]+(?![0-9A-Za-z]))?"
_POWER = r"\s?\^\s?\{?\s?(?P<%s>-?[0-9]+)\s?\}?"
# A minus is a sign only where no operand stands before it: "5-3" and "5 - 3" end with 3, "= -3"
# and "= - 3" with -3. The power of a unit or a variable (cm^2) is passed over.
_NUMBER = re.compile(
    r"(?P<skip>\^\s?\{?\s?-?[0-9]+)"
    r"|(?P<sign>(?<![0-9A-Za-z)\]}])-|(?:(?<==)|(?<==\s))-\s)?(?:\$\s?)?(?P<sign2>(?<=\$)-)?"
    r"(?:(?P<whole>[0-9]{1,9})?\s?\\[dt]?frac\s?(?:\{(?P<top>-?[0-9]+)\}\{(?P<bottom>[0-9]+)\}|(?P<short>[0-9]{2}))"
    r"|(?P<whole2>[0-9]{1,3})\s(?P<top2>[1-9][0-9]?)/(?P<bottom2>[1-9][0-9]{0,2})(?![0-9/]|\.[0-9])"
    rf"|(?P<value>(?:{_UNSIGNED}){_EXPONENT})(?:/(?P<over>[0-9]+)|{_POWER % 'power'}"
    rf"|\s?(?:\\times|\\cdot|[×x*])\s?10{_POWER % 'tens'})?)",
    re.ASCII,
)
_RUN = re.compile(r"[0-9.,/eE+\-$ {}\\dtfracimsox×*^\t\n\r\f\v]+")  # what a number can hold
_DIGIT = re.compile(r"[0-9]")
_MINUS = str.maketrans({"−": "-", "﹣": "-", "-": "-", "–": "-"})


def _plain(text: str) -> str:
    text = text.translate(_MINUS)
    if "\\" in text or "{," in text:
        for mark in ("{,}", "\\,", "\\!"):  # LaTeX spacing inside a number: 1{,}000
            text = text.replace(mark, "," if mark == "{,}" else "")
        text = text.replace("\\$", "$").replace("\\%", "%")
    return text


def _value(match: re.Match[str]) -> Fraction | None:
    if match.end() - match.start() > MAX_NUMBER_CHARS:
        return None
    whole, top, bottom = (
        match["whole"] or match["whole2"] or "0",
        match["top"] or match["top2"],
        match["bottom"] or match["bottom2"],
    )
    if match["short"]:
        top, bottom = match["short"][0], match["short"][1]
    if top is None:
        top, bottom = match["value"].replace(",", ""), match["over"] or "1"
    _, mark, exponent = top.lower().partition("e")
    if mark and abs(int(exponent)) > MAX_EXPONENT:
        return None
    if not int(bottom):
        return None
    value = int(whole) + Fraction(top) / int(bottom)
    if match["power"] or match["tens"]:
        if mark:
            return None  # 1e400^400
        power = int(match["power"] or match["tens"])
        if abs(power) > MAX_EXPONENT or (power < 0 and not value) or len(top) * abs(power) > MAX_NUMBER_CHARS:
            return None
        value = value**power if match["power"] else value * Fraction(10) ** power
    return -value if match["sign"] or match["sign2"] else value


def last_number(text: str) -> Fraction | None:
    """The last number in ``text``, exactly; None where there is none, or it is too long to be one.

    Reads thousands separators, ``$``, ``%`` (dropped: 50% is 50), decimals, exponents, powers of numbers (``10^6``; not of units),
    ``a/b``, ``\\frac{a}{b}``, mixed numbers and the Unicode minus; a full stop after the number does not belong to it.
    """
    text = _plain(text)
    # A number lies within one run of characters that a number can hold; mostly only the last one is searched.
    for run in reversed([m.span() for m in _RUN.finditer(text)]):
        if _DIGIT.search(text, *run) is None:
            continue
        last = None
        for match in _NUMBER.finditer(text, run[0], run[1] + 1):
            last = match if match["skip"] is None else last
        if last is not None:
            return _value(last)
    return None


@lru_cache(maxsize=4096)
def parse_number(text: str) -> Fraction | None:
    """The number that the whole of ``text`` is (``$1,234.50``, ``-3/4``, ``25%``, ``7.``); None where it is anything else."""
    plain = _plain(text).strip().strip("$").removesuffix("%").rstrip()
    match = _NUMBER.fullmatch(plain.removesuffix("."))
    return None if match is None or match["skip"] else _value(match)


def number_text(value: Fraction) -> str:
    """Canonical text of a number: ``14``, ``-7/2``. Equal numbers give equal texts."""
    return str(value)


# On the last line only: a solution in Markdown or code has such marks elsewhere.
_MARKED = re.compile(r".*(?<!#)####(?!#)\s*([^\n]*?)\s*\Z", re.DOTALL)
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")


@lru_cache(maxsize=4096)
def gold_from_text(text: str) -> str:
    r"""The answer inside a gold text: after GSM8K's ``####`` on its last line (``1,080`` as 1080), else the last box, else all of it."""
    marked = _MARKED.match(text) if "####" in text else None
    if marked is not None:
        gold = marked[1]
        return gold if gold.startswith(("(", "[", "{", "\\")) else _THOUSANDS.sub(lambda m: m[0].replace(",", ""), gold)
    boxed = last_boxed(text)
    return text.strip() if boxed is None else boxed


# Letters and what stands between words. A single letter may be a variable or an option, and a list of short ones all products.
_IN_WORDS = re.compile(r"(?=.*[^\W\d_]{2})(?:[^\W\d_]|[ .,'’&-])+")
_LONG_WORD = re.compile(r"[^\W\d_]{4}")
# What a gold may hold without being prose: formulas, LaTeX's own words, and words that LaTeX marks as such.
_NOT_PROSE = re.compile(r"\$[^$]*\$|\\(?:text|mbox|textrm|mathrm|begin|end|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}")
_SENTENCE = re.compile(r"\s*[A-Z].*[.!?]\s*", re.DOTALL)


@lru_cache(maxsize=4096)
def is_prose(gold: str) -> bool:
    """Whether a gold is a sentence or a worked solution with numbers or formulas in it, of which a verifier that reads
    answers would compare whatever it can read: six words or more, or four in the form of a sentence; or GSM8K's mark
    before the last line.
    """
    gold = gold_from_text(gold)
    if "####" in gold:
        return True
    if read_quantity(gold) is not None or not (_DIGIT.search(gold) or "$" in gold or "\\" in gold):
        return False
    words = len(_WORD.findall(_NOT_PROSE.sub(" ", gold)))
    return words >= 6 or (words >= 4 and _SENTENCE.fullmatch(gold) is not None)


def gold_text(value: object) -> str:
    """A gold answer as text: 14.0 gives ``14``, 14.5 ``14.5``, text as :func:`gold_from_text` reads it. A list of
    words gives accepted answers (``Paris OR City of Paris``), of which ``math`` takes any; any other list is one answer with commas.

    Raises:
        ValueError: with the reason, for a value that is no answer: None, a bool, NaN, an infinity, an empty text, or any
            other type.
    """
    if isinstance(value, list | tuple) and value and not any(isinstance(part, list | tuple) for part in value):
        parts = [gold_text(part) for part in value]
        # Names of one thing, as TriviaQA has them; numbers, formulas and letters are the parts of one answer, as in OlympiadBench.
        in_words = all(map(_IN_WORDS.fullmatch, parts)) and any(map(_LONG_WORD.search, parts))
        return (" OR " if in_words else ", ").join(parts)
    if value is None:
        raise ValueError("it is missing (null)")
    if isinstance(value, bool):
        raise ValueError(f"it is {value!r}; a true or false answer must be written as text")
    if isinstance(value, int):
        return str(value) if value.bit_length() < 3 * MAX_NUMBER_CHARS else _too_long()
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise ValueError(f"it is {value}, not a number that can be checked")
        return _decimal_text(Decimal(repr(value)) if isinstance(value, float) else value)
    if not isinstance(value, str):
        raise ValueError(f"it is of type {type(value).__name__}, neither text nor a number")
    text = gold_from_text(value)
    if not text:
        raise ValueError("it is empty")
    if half_pair(text):
        raise ValueError("it holds half of a surrogate pair, which cannot be written as UTF-8")
    return text


def structured_text(value: list[Any] | dict[str, Any]) -> str | None:
    """Tests or another gold of several fields as JSON; None where JSON cannot hold them (bytes, dates)."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _too_long() -> str:
    raise ValueError(f"it is an integer of more than {MAX_NUMBER_CHARS:,} digits")


def _decimal_text(value: Decimal) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", ""} else text
