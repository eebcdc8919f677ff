"""Answers as text: what a gold answer is, and which number or box a completion ends with.

Everything here is pure, uses no ``eval`` and takes time linear in the text, so it is safe on whatever a policy writes.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

#: A number with more characters than this is not read as a number. It keeps below Python's limit on digits per integer
#: (4,300) and bounds the time of one comparison.
MAX_NUMBER_CHARS = 4000
#: Larger powers of ten than this are not read as a number either: 1e999999999 would fill the memory.
MAX_EXPONENT = 400

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_EXPONENT = r"(?:[eE][+-]?[0-9]+(?![0-9A-Za-z]))?"
# A minus is a sign only where no operand stands before it: "5-3" and "5 - 3" end with 3, "= -3"
# and "= - 3" with -3.
_NUMBER = re.compile(
    r"(?P<sign>(?<![0-9A-Za-z)\]}])-|(?:(?<==)|(?<==\s))-\s)?(?:\$\s?)?(?P<sign2>(?<=\$)-)?"
    r"(?:\\[dt]?frac\{(?P<top>-?[0-9]+)\}\{(?P<bottom>[0-9]+)\}"
    rf"|(?P<value>(?:{_UNSIGNED}){_EXPONENT})(?:/(?P<over>[0-9]+))?)",
    re.ASCII,
)
_TO_LAST_DIGIT = re.compile(r".*[0-9]", re.DOTALL)
_IN_NUMBER = "0123456789.,/eE+-$ {}\\dtfrac\t\n\r\f\v"
_MINUS = str.maketrans({"−": "-", "﹣": "-", "-": "-"})


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
    top, bottom = match["top"] or match["value"].replace(",", ""), match["bottom"] or match["over"] or "1"
    _, mark, exponent = top.lower().partition("e")
    if mark and abs(int(exponent)) > MAX_EXPONENT:
        return None
    if not int(bottom):
        return None
    value = Fraction(top) / int(bottom)
    return -value if match["sign"] or match["sign2"] else value


def last_number(text: str) -> Fraction | None:
    """The last number in ``text``, exactly; None where there is none, or it is too long to be one.

    Reads thousands separators, ``$``, ``%`` (dropped: 50% is 50), decimals, exponents, ``a/b``, ``\\frac{a}{b}`` and the
    Unicode minus; a full stop after the number does not belong to it.
    """
    text = _plain(text)
    digits = _TO_LAST_DIGIT.match(text)
    if digits is None:
        return None
    # The last number begins within the last run of characters that a number can hold; the text before is not searched.
    start = len(digits[0].rstrip(_IN_NUMBER))
    last = None
    for last in _NUMBER.finditer(text, start, digits.end() + 1):  # noqa: B007 - the last match is wanted
        pass
    return None if last is None else _value(last)


@lru_cache(maxsize=4096)
def parse_number(text: str) -> Fraction | None:
    """The number that the whole of ``text`` is (``$1,234.50``, ``-3/4``, ``25%``, ``7.``); None where it is anything else."""
    plain = _plain(text).strip().strip("$").removesuffix("%").rstrip()
    match = _NUMBER.fullmatch(plain.removesuffix("."))
    return None if match is None else _value(match)


def number_text(value: Fraction) -> str:
    """Canonical text of a number: ``14``, ``-7/2``. Equal numbers give equal texts."""
    return str(value)


def last_boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{...}`` (braces balanced), stripped; None where there is no complete box."""
    end = len(text)
    while (start := text.rfind("\\boxed{", 0, end)) >= 0:
        depth = 0
        for i in range(start + 6, end):
            depth += (text[i] == "{") - (text[i] == "}")
            if not depth:
                return text[start + 7 : i].strip()
        end = start  # an earlier box that holds this unclosed one is unclosed too, so it closes before here or never
    return None


@lru_cache(maxsize=4096)
def gold_from_text(text: str) -> str:
    r"""The answer inside a gold text: after GSM8K's ``####`` (commas dropped), else the last ``\boxed{}``, else all of it."""
    if "####" in text:
        return text.rpartition("####")[2].strip().replace(",", "")
    boxed = last_boxed(text) if "\\boxed{" in text else None
    return boxed if boxed else text.strip()


def gold_text(value: object) -> str:
    """A gold answer as text: 14.0 gives ``14``, 14.5 ``14.5``, text as :func:`gold_from_text` reads it; a list
    gives its answers with commas between them.

    Raises:
        ValueError: with the reason, for a value that is no answer: None, a bool, NaN, an infinity, an empty text, or any
            other type.
    """
    if (
        isinstance(value, list | tuple) and value and not any(isinstance(part, list | tuple) for part in value)
    ):  # several answers, as OlympiadBench has them
        return ", ".join(gold_text(part) for part in value)
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
    return text


def _too_long() -> str:
    raise ValueError(f"it is an integer of more than {MAX_NUMBER_CHARS:,} digits")


def _decimal_text(value: Decimal) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", ""} else text
