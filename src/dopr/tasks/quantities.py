r"""Numbers as they are written in answers, read exactly: ``1{,}080``, ``-\frac{3}{4}``, ``2\frac12``, ``\$18.90``, ``12.5\%``,
``90^\circ``, ``5.4\text{ cents}``, ``2\text{ million}``, ``\text{negative }5``; and units, so far as it takes to see that two differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_LONGEST = 200  # characters; a longer text is not read as a number here

_SPACING = re.compile(r"\\(?:left|right|displaystyle|textstyle|!|;|:|>)(?![A-Za-z])|(?<!\\)~")
# A comma between groups of three digits sets thousands apart, but not inside brackets: (120,130] is an interval.
_THOUSANDS = re.compile(
    r"(?<![0-9.,(\[])(?<!\\\{)([1-9][0-9]{0,2})((?:,[0-9]{3})+)(?![0-9,]|\s*[)\]]|\s*\\\})"
    r"|(?<![0-9.,])([1-9][0-9]{0,2})((?:\\,[0-9]{3}|,\\![0-9]{3}| [0-9]{3})+)(?![0-9])"
)
_DEGREES = re.compile(
    r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degree\b)(?:\s*(?:\\(?:text|mathrm)\s*\{\s*[CF]\s*\}|[CF]\b))?"
)
_PER = re.compile(
    r"\\[dt]?frac\s*\{\s*\\(?:text|mathrm)\{([A-Za-z .]+)\}\s*\}\s*\{\s*\\(?:text|mathrm)\{([A-Za-z .]+)\}\s*\}"
)
_POWER = r"(?:\s*(?:\^\s*\{?\s*[23]\s*\}?|[²³]))?"
_UNIT_TEXT = re.compile(
    rf"\\(?:text|mbox|mathrm|textrm|operatorname)\s*\{{\s*~?([A-Za-z](?:[A-Za-z .,:/²³'-]|\$?\^\{{?-?[1-9]\}}?\$?)*)\}}({_POWER})"
)
_DECIMAL = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_TIMES_TEN = r"\s*(?:\\times|\\cdot|×|\*)\s*10\s*"
_QUANTITY = re.compile(
    r"(?i:(?:about|around|approximately|roughly|exactly|only)\s+)?(?P<sign>[-+]|(?i:negative|minus)\s|)\s*(?P<coin>\\?[$€£¥])?\s*(?P<sign2>[-+]?)\s*"
    r"(?:(?P<whole>[0-9]+)\s*\\[dt]?frac\s*(?P<mixed>\{\s*[0-9]+\s*\}\s*\{\s*[0-9]+\s*\}|[0-9][0-9])"
    r"|(?P<whole2>[0-9]+)\s+(?P<mixed2>[0-9]+\s*/\s*[0-9]+)"
    rf"|\\[dt]?frac\s*(?P<frac>(?:\{{\s*-?{_DECIMAL}\s*\}}|[0-9])\s*(?:\{{\s*-?{_DECIMAL}\s*\}}|[0-9]))"
    rf"|(?P<top>{_DECIMAL})(?:[eE](?P<exponent>[+-]?[0-9]{{1,3}})|{_TIMES_TEN}\^\s*\{{?\s*(?P<power>[+-]?[0-9]{{1,3}})\s*\}}?)?(?:\s*/\s*(?P<bottom>{_DECIMAL}))?)"
    rf"\s*(?P<percent>\\?%)?(?P<unit>(?:\s+|(?=(?:km|cm|mm|kg|mg|ml|mi|mph|ft)\b))[A-Za-z][A-Za-z /.,²³'-]*{_POWER})?"
)
_PARTS = re.compile(rf"-?{_DECIMAL}")
#: Unit words and signs, under one name each.
UNITS = {
    word: names[0]
    for names in (
        line.split()
        for line in """
        metre m meter meters metres
        centimetre cm centimeter centimeters centimetres
        millimetre mm millimeter millimeters millimetres
        kilometre km kilometer kilometers kilometres
        inch in inches
        foot ft feet
        yard yd yards
        mile mi miles mph
        second s sec secs seconds
        minute min mins minutes
        hour h hr hrs hours
        day days
        week weeks
        month months
        year yr years
        gram g grams
        kilogram kg kilograms
        pound lb lbs pounds
        ounce oz ounces
        ton tons tonnes
        litre l liter liters litres
        millilitre ml milliliter milliliters
        gallon gal gallons
        dollar dollars usd
        cent cents
        euro euros eur
        degree degrees deg
        radian radians rad
        """.strip().splitlines()
    )
    for word in names
}
_COINS = {"$": "dollar", "€": "euro", "£": "sterling", "¥": "yen"}
#: Words that multiply the number before them.
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_PERCENT = re.compile(r"\s*\bper\s?cent\b\.?\s*")
_NO_UNIT = frozenset(
    """
    or and maybe perhaps possibly either not but if than of to at least most over under about
    pi infinity inf sqrt root half halves remainder negative minus
    """.split()  # noqa: SIM905 - a line each would be longer than its use
)
_POWERS = frozenset(["squared", "cubed"])  # behind a unit they belong to it, behind a number they change it
#: Words around a number that say another one, or no single one: "at least 5", "half of 5", "5 remainder 2", "5 or more".
OTHER_NUMBER = re.compile(
    r"""
    \bat\s+(?:least|most)\b
    | \b(?:less|more|fewer|greater|smaller|larger|higher|lower)\s+than\b
    | \bor\s+(?:more|less|fewer|so|greater|higher|lower)\b
    | \b(?:half|twice|double|triple|root|negative|minus)\b
    | [0-9]\}?\s*(?:\\text\s*\{)?\s*(?:remainder\b|(?:squared|cubed|halves)\b(?!\s*[A-Za-z]))
    | [0-9]\}?\s*\\text\s*\{\s*(?:pi\b|(?-i:k)\s*\})
    """,
    re.IGNORECASE | re.VERBOSE,
)
# Words before a number that must be looked at; all others ("There are", "Total:") only introduce it.
_TELLING = re.compile(
    r"\b(?:not|or|maybe|perhaps|possibly|either|if|over|under|below|loss|about|around|approximately|roughly|exactly|only)\b",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\s*[0-9]{1,2}\s*:\s*[0-9]{2}\s*")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with what was written around it."""

    value: Fraction
    """Exact; of ``50%`` it is 50."""
    percent: bool
    """Whether a percent sign follows."""
    decimals: int | None
    """Digits after the point of a plain decimal number; None for integers and fractions."""
    scale: int
    """What a word behind it multiplies it by, else 1: of ``2 million`` the value is 2, the scale 1,000,000."""
    units: frozenset[str]
    """Known units named with it, under one name each."""


@lru_cache(maxsize=8192)
def read_quantity(text: str) -> Quantity | None:
    """The number that the whole of ``text`` is; None where it is anything else, or has more to it than a unit."""
    if len(text) > _LONGEST:
        return None
    units = units_of(text)
    plain = _DEGREES.sub("", _UNIT_TEXT.sub(_bare_words, _PER.sub(r"\\text{\1/\2}", simplified(text))))
    plain = _PERCENT.sub(r"\\%", plain)
    match = _QUANTITY.fullmatch(plain.strip().strip("$").strip().removesuffix(".").strip())
    scale = None if match is None else _scale_of(match["unit"] or "")
    if match is None or scale is None:
        return None
    if match["coin"]:
        units |= {_COINS[match["coin"][-1]]}
    value = _value(match)
    if value is None:
        return None
    if (match["sign"] not in ("", "+")) != (match["sign2"] == "-"):
        value = -value
    point = match["top"] and "." in match["top"] and not match["bottom"] and not (match["exponent"] or match["power"])
    return Quantity(
        value=value, percent=bool(match["percent"]), scale=scale,
        decimals=len(match["top"].rpartition(".")[2]) if point else None, units=units,
    )  # fmt: skip


def _bare_words(wrapped: re.Match[str]) -> str:
    """Words without their ``\\text{}``; a unit's power stays behind them."""
    # \operatorname and \mathrm may be functions.
    first = wrapped[0].startswith(("\\text", "\\mbox")) and not wrapped.string[: wrapped.start()].strip(" $\\")
    if first and not OTHER_NUMBER.search(wrapped[1]) and not _TELLING.search(wrapped[1]):
        return " "
    words = wrapped[1].replace("$", "")  # cm$^2$
    return f" {words}{wrapped[2]} "


def _value(match: re.Match[str]) -> Fraction | None:
    whole, mixed = match["whole"] or match["whole2"] or "0", match["mixed"] or match["mixed2"] or match["frac"]
    if mixed is not None:
        top, bottom = (
            Fraction(part)
            for part in (
                mixed if mixed.isdigit() else _PARTS.findall(re.sub(r"(?<![{0-9.])([0-9])(?={)", r"\1 ", mixed))
            )
        )
        return Fraction(whole) + top / bottom if bottom else None
    bottom = Fraction(match["bottom"] or 1)
    return (
        Fraction(match["top"]) * Fraction(10) ** int(match["exponent"] or match["power"] or 0) / bottom
        if bottom
        else None
    )


def _scale_of(unit: str) -> int | None:
    """What the words behind a number multiply it by: 1 where they are only its unit ("dollars per hour", "in. squared"); None where
    they are more than that ("x", "or so").
    """
    words = [word if len(word) == 1 else word.lower() for word in re.findall(r"[A-Za-z]+", unit)]
    scale = 1
    while words and (times := SCALES.get(words[0]) or SCALES.get(words[0].removesuffix("s"))):
        scale, words = scale * times, words[1:]
    if any((len(word) == 1 and word not in UNITS) or word in _NO_UNIT for word in words):
        return None
    return None if len(words) == 1 and words[0] in _POWERS else scale


def units_of(text: str) -> frozenset[str]:
    """The known units that ``text`` names in words, ``\\text{}`` or signs."""
    named = {"degree"} if _DEGREES.search(text) else set()
    if re.search(r"\\\$", text):
        named.add("dollar")
    wrapped = " ".join(words for words, _ in _UNIT_TEXT.findall(text))
    tail = re.search(r"(?<=[0-9}])\s*([A-Za-z]+)(?:\s*(?:/|per)\s*[A-Za-z]+)?[\s^²³{}0-9.]*$", text)
    words = [*re.findall(r"[A-Za-z]+", wrapped), *([tail[1]] if tail and not text.rstrip().endswith("}") else [])]
    return frozenset(named | {UNITS[w.lower()] for w in words if w.lower() in UNITS})


def simplified(text: str) -> str:
    """``text`` without LaTeX's spacing and size commands, and with plain digits where thousands were set apart."""
    return "\\\\".join(map(_simplified, text.split("\\\\"))).strip()  # a double backslash ends a matrix row


def _simplified(text: str) -> str:
    plain = re.sub(r",\s*\\!\s*|\{,\}", ",\\\\!", text)
    plain = _THOUSANDS.sub(lambda m: (m[1] or m[3]) + re.sub(r"[^0-9]", "", m[2] or m[4]), plain)
    return _SPACING.sub(" ", plain.replace(",\\!", ",").replace("\\!", "").replace("\\ ", " ")).replace("\\,", " ")


def equal(gold: Quantity, answer: Quantity) -> bool:
    """Whether two numbers are the same answer.

    Exactly equal; or one is the other rounded to at least six decimals and six significant digits (0.333333 for 1/3). A
    percentage is its hundredth as well as, against a gold above 1 in size, its bare number; "2 million" is 2,000,000 as well as, against a
    gold without such a word, 2, for problems ask "in millions". Different units never agree.
    """
    if gold.units and answer.units and not gold.units & answer.units:
        return False
    pairs = [(_whole(gold), _whole(answer))]
    if gold.percent or (answer.percent and abs(gold.value) > 1) or gold.scale == 1 < answer.scale:
        pairs.append((gold.value * gold.scale, answer.value))
    return any(a == b or _rounds(a, b, answer.decimals) or _rounds(b, a, gold.decimals) for a, b in pairs)


def nearly(a: Fraction, b: Fraction) -> bool:
    """Whether two bare numbers are equal, or one is the other rounded, by the rule of :func:`equal`."""
    return a == b or _rounds(a, b, _decimals(b)) or _rounds(b, a, _decimals(a))


def _decimals(value: Fraction) -> int | None:
    """Digits after the point that ``value`` needs; None for integers, and where they never end."""
    rest, digits = value.denominator, 0
    for factor in (2, 5):
        times = 0
        while rest % factor == 0:
            rest, times = rest // factor, times + 1
        digits = max(digits, times)
    return digits if rest == 1 and digits else None


@lru_cache(maxsize=8192)
def read_ratio(text: str) -> tuple[Fraction, ...] | None:
    """``3 : 5 : 7`` divided by its first term; what may be a time of day (``4:40``) as it stands; None for anything else."""
    if ":" not in text or len(text) > _LONGEST or re.search(r"[A-Za-z]", re.sub(r"\\[dt]?frac", "", text)):
        return None
    terms = [read_quantity(part) for part in text.split(":")]
    numbers = [term.value for term in terms if term is not None and not term.percent]
    if len(numbers) < 2 or len(numbers) < len(terms) or not numbers[0]:
        return None
    return (Fraction(0), *numbers) if _CLOCK.fullmatch(text) else tuple(n / numbers[0] for n in numbers)


def _whole(quantity: Quantity) -> Fraction:
    return quantity.value * quantity.scale / (100 if quantity.percent else 1)


def _rounds(exact: Fraction, rounded: Fraction, decimals: int | None) -> bool:
    if decimals is None or decimals < 6 or abs(rounded) * 10**decimals < 10**5:
        return False
    return abs(exact - rounded) * 2 * 10**decimals <= 1
