r"""Where a completion states its answer: in a box, after "the answer is", or last of all.

The rules, of which any part can be asked for:

========  ============================================================================================================
boxed     ``\boxed{...}`` (also ``\fbox``), braces balanced; empty boxes are passed over
final     a value right after "(final) answer is/:/=", ``####``, a line's ``A:``, or in ``<answer>`` tags
last      the last mathematical value of the text, where nothing is boxed or announced
========  ============================================================================================================

Boxes and announcements are statements; **the latest statement counts**, so "\boxed{5}. No: the answer is 6" answers 6.
Statements with only connecting words between them ("or", "and", "it could also be", nothing) are one answer of several
parts: a completion that lists candidates answers with the list, which no single gold equals. The same holds for "5 or 6"
after one announcement. Text up to ``</think>`` is not read; in an unclosed ``<think>`` nothing but statements counts.

Only the last 100,000 characters are read. Everything here takes time linear in the text.
"""

from __future__ import annotations

import bisect
import itertools
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from dopr.tasks.boxes import find_boxes
from dopr.tasks.quantities import OTHER_NUMBER, SCALES, UNITS, read_quantity
from dopr.tasks.value_text import OR, value_at, values

#: The extraction rules.
RULES = ("boxed", "final", "last")

_READ = 100_000
_LAST = 4_000  # the rule "last" looks for the last value in this many characters at the end

_TAGGED = re.compile(r"<answer>(.{0,4000}?)</answer>", re.DOTALL | re.IGNORECASE)
_ANNOUNCED = re.compile(
    r"####"
    r"|^[ \t>*_]*A[*_]*\s*:(?=[^\n]*\S)"
    r"|\banswers?\b(?P<gap>[^.\n$\\0-9]{0,60}?)\b(?:is|are|was|equals|be|becomes)\b"
    r"|(?:^[^\w\n]*(?:\w+\s+){0,2}|\bfinal\s+)answers?\b[^.\n$\\0-9]{0,40}?(?:[:=]|[*_]+\s*\n)",
    re.MULTILINE | re.IGNORECASE,
)
_HASHED = re.compile(r"\s*\*{0,2}(?![0-9]{1,2}[.):]\s)[-+$\\(\[.0-9]")  # a value, not the number of a heading
_FILLER = re.compile(
    r"(?:[\s:*_`~]|\b(?:therefore|thus|then|hence|indeed|simply|just|clearly|now|exactly|precisely|approximately|about|around|"
    r"equal|to|given|by|either|both)\b,?|\bthe\s+(?:number|value)\b(?:\s+of\b)?|=(?!=))*",
    re.IGNORECASE,
)
_CONNECTING = frozenset(
    """
    a also alternatively an and another answer answers are as be both by can candidate candidates case choice
    could decimal either else equal equals even fifth final first form fourth fraction given gives guess hence
    in is it its may maybe might more next of option options or other perhaps possible possibly probably second
    simplified simplifies simplify so solution solutions that the then therefore these third this thus to value
    which with
    """.split()  # noqa: SIM905 - a line each would be longer than this module
)
_NAMED = re.compile(r"\b[A-Za-z]\s*=")
_WORD = re.compile(r"[A-Za-z']+")
_OR = re.compile(
    r"(?P<between>[^.!?\n0-9=]{0,40}?)\b(?:or|alternatively|maybe|perhaps|possibly)\b(?P<then>[^.!?\n0-9$\\]{0,30})"
)
_OR_BEFORE = re.compile(
    r"(?:[0-9)}\]$%]|\b[A-Za-z])\s*,?\s*(?:\w+\s+)?\b(?:or|alternatively|maybe|perhaps|possibly)\b[\s\w]{0,20}[$*\s]*$"
)
_REASON = re.compile(r"\b(?:because|since|as|if|when|where|for|whether)\b", re.IGNORECASE)
_NO_IDEA = re.compile(
    r"(?:\b(?:do|does|did|can|could|am|is|are|was)(?:\s+not|n't|n’t)|\bcannot|\bunable\s+to|\bno)\s+(?:\w+\s+){0,2}?"
    r"(?:know|sure|idea|determined?|solved?|answer(?:ed)?|certain|tell|figure)\b|\b(?:unsure|(?:not|n't)\s+sure)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"(?:\bnot|n't|n’t|\bnever)\s+(?:(?:be|equal|to|necessarily|really|exactly)\s+){0,3}\W*$", re.IGNORECASE
)
_PROSE = re.compile(r"[A-Za-z']{2,}[\s:].*[0-9]", re.DOTALL)  # words, then a number
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|\*)|\n|$")
_EQUALS = re.compile(r"(?<![<>:\\])(?<![^0-9A-Za-z)]!)=|\\approx|\\equiv|\\Rightarrow|\\implies|\\to\b|≈|→|⇒")
_CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")  # GSM8K's calculator notes
_ALIGNED = re.compile(
    r"\\begin\{(align|gather|equation|aligned|eqnarray|split|multline)\*?\}(.*)\\end\{\1\*?\}\Z", re.DOTALL
)
_ITEM = re.compile(
    r"\n\s*(?:[-*•]\s*)?(?:(?:option|case|candidate|possibility|choice|answer|guess)\s*)?(?:#|\()?[0-9]{1,2}[.):]", re.IGNORECASE
)  # fmt: skip
_UNIT = re.compile(r"\s((?!in\b)[A-Za-z]{2,})\b(?:\s+[0-9]+)?")
_BEHIND = (
    UNITS.keys() | SCALES.keys() | {f"{scale}s" for scale in SCALES} | {"squared", "cubed", "halves"}
)  # words that a number is not read without
_FURTHER = re.compile(
    rf",?\s+(?:and\s+)?(?:[0-9.]+\s+(?:{'|'.join(word for word in UNITS if len(word) > 2)})\b|and\s+a\s+(?:half|quarter|third)\b)"
)
_OR_SO = re.compile(r"\s+or\s+(?:more|less|fewer|so|greater|higher|lower)\b")
_UNREAD = "?"  # what stands before an "or"; it need not be read to see that the completion does not commit itself
_FULL_WIDTH = {chr(0xFEE0 + ord(c)): c for c in "+-./()=%,"} | {"−": "-", "–": "-", "﹣": "-"}
_FULL_WIDTH |= dict.fromkeys("\u00a0\u202f\u2009", " ")


@dataclass(frozen=True, slots=True)
class Stated:
    """The answer of a completion."""

    #: One text, or several where the completion states several answers side by side.
    parts: tuple[str, ...]
    #: The rule that found it: boxed, final or last.
    rule: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A box or an announcement: where it stands, what it says, the rule that found it."""

    start: int
    end: int
    parts: tuple[str, ...]
    rule: str


def find_answer(text: str, rules: Collection[str] = RULES) -> Stated | None:
    """The answer that ``text`` ends with by ``rules``; None where it states none."""
    text = _CALCULATION.sub("", plain_digits(text[-_READ:]))
    _, closed, rest = text.rpartition("</think>")
    if closed:
        text = rest
    statements = boxes(text) if "boxed" in rules else []
    if "final" in rules:
        statements = _outside(_announcements(text), statements)
    if statements:
        return _latest(text, statements)
    if "final" in rules and (words := _words(text)) is not None:
        return words
    if "last" not in rules or (not closed and "<think>" in text):
        return None
    return _last(text[-_LAST:])


def plain_digits(text: str) -> str:
    """``text`` with the decimal digits of every script as ASCII ones; superscripts and circled digits stay as they are."""
    if text.isascii():
        return text
    return "".join(
        str(unicodedata.decimal(c)) if not c.isascii() and unicodedata.category(c) == "Nd" else _FULL_WIDTH.get(c, c)
        for c in text
    )


def boxes(text: str) -> list[Statement]:
    """The outermost boxes that are closed and not empty."""
    return [Statement(b.start, b.end, _with_doubt(text, b.start, b.end, b.inside), "boxed") for b in find_boxes(text)]


def _announcements(text: str) -> list[Statement]:
    found = []
    for match in _TAGGED.finditer(text):
        said = match[1].strip(" \n\t*_`")
        inside = find_answer(said, ("boxed", "final")) or (_last(said) if _PROSE.match(said) else None)
        parts = inside.parts if inside is not None else (said,)
        if any(parts):
            found.append(Statement(match.start(), match.end(), parts, "final"))
    for match in _announcing(text):
        if match[0] == "####" and not _HASHED.match(text, match.end()):
            continue
        if match["gap"] and re.search(r"\b(?:choices?|options?|not|isn't)\b", match["gap"], re.IGNORECASE):
            continue
        filler = _FILLER.match(text, match.end())
        start = filler.end() if filler else match.end()
        plain, end = value_at(text, start)
        value, end = _with_unit(text, plain, end)
        if value is not None:
            if value != plain and "," not in value and OR not in value:
                value = value.rpartition("=")[2].strip()  # "9 * 2 = 18 dollars"
            found.append(Statement(match.start(), end, _with_doubt(text, start, end, value), "final"))
    return sorted(found, key=lambda s: s.start)


def _announcing(text: str) -> list[re.Match[str]]:
    """Where answers are announced; of the headings that Markdown writes like GSM8K's mark only those with a number, or on the last line."""
    last_line = text.rstrip().rfind("\n") + 1
    return [
        match
        for match in _ANNOUNCED.finditer(text)
        if match[0] != "####" or match.start() >= last_line or _HASHED.match(text, match.end())
    ]


def _with_unit(text: str, value: str | None, end: int) -> tuple[str | None, int]:
    """A value and the words behind it that say what it is: a known unit, "million", "remainder 2", "and 30 minutes", "or more"."""
    if value is None:
        return None, end
    word = _UNIT.match(text, end) if value[-1].isdigit() else None
    if word is not None and word[1].lower() == "remainder":
        value, end = f"{value}{word[0]}", word.end()
    elif word is not None and word[1].lower() in _BEHIND:
        value, end = f"{value} {word[1]}", word.end(1)
    for more in (_FURTHER, _OR_SO):
        if (behind := more.match(text, end)) is not None:
            value, end = f"{value}{behind[0]}", behind.end()
    return value, end


def _with_doubt(text: str, start: int, end: int, value: str) -> tuple[str, ...]:
    """``value`` and the other candidates that "or" ties to it in its sentence: "5 apples, or maybe 6"."""
    parts = [part.strip() for part in value.split(OR)]
    after = _OR.match(text, end, min(len(text), end + 120))
    if after is not None and not _REASON.search(after["between"]) and not _REASON.search(after["then"]):
        other, _ = value_at(text, after.end())
        if other is not None:
            parts += other.split(OR)
    beside = text[max(0, start - 300) : start]
    if _OR_BEFORE.search(beside[-60:].rpartition("\n")[2]) and "\\boxed" not in beside:
        before = values(beside)
        parts.insert(0, before[-1][2] if before else _UNREAD)
    return tuple(parts)


def _outside(announcements: list[Statement], boxes: list[Statement]) -> list[Statement]:
    """Boxes and announcements in order, without the announcements inside a box and the boxes inside an announcement."""
    kept = _beginning_outside(announcements, boxes)
    return sorted([*kept, *_beginning_outside(boxes, kept)], key=lambda s: s.start)


def _beginning_outside(statements: list[Statement], others: list[Statement]) -> list[Statement]:
    """Those that do not begin within one of ``others``, which are in order."""
    starts = [other.start for other in others]
    ends = [0, *itertools.accumulate((other.end for other in others), max)]
    return [s for s in statements if ends[bisect.bisect_right(starts, s.start)] <= s.start]


def _latest(text: str, statements: list[Statement]) -> Stated:
    run = [statements[-1]]
    for statement in reversed(statements[:-1]):
        gap = _NAMED.sub("", _ITEM.sub(" ", text[statement.end : run[0].start]))
        if len(gap) > 100 or any(word.lower() not in _CONNECTING for word in _WORD.findall(gap)):
            break
        if re.search(r"[0-9]", gap):
            break
        run.insert(0, statement)
    later = [part for s in run[1:] for part in s.parts if part != _UNREAD]
    return Stated(tuple(dict.fromkeys([*run[0].parts, *later])), run[-1].rule)


def _words(text: str) -> Stated | None:
    """A short text after the last announcement: "The answer is Evelyn."."""
    for match in reversed(_announcing(text)):
        filler = _FILLER.match(text, match.end())
        start = filler.end() if filler else match.end()
        stop = _SENTENCE_END.search(text, start)
        said = text[start : stop.start() if stop else len(text)].strip(" *_\"'`,;:$")
        # A sentence that names a number is left to the rule "last", unless its words belong to the number.
        prose = _PROSE.match(said) and read_quantity(said) is None and not OTHER_NUMBER.search(said)
        if said and len(said) <= 60 and len(said.split()) <= 4 and not prose and not _NO_IDEA.search(said):
            return Stated((said,), "final")
    return None


def _last(text: str) -> Stated | None:
    if _NO_IDEA.search(text[-300:]):
        return None
    unclosed = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if unclosed >= 0 and text.count("{", unclosed) > text.count("}", unclosed):  # cut off inside its answer
        return None
    for start, end, value in reversed(values(text)):
        bare = value.strip(" .{}")
        if len(bare) == 1 and not bare.isdigit():  # a lone variable named in a closing remark
            continue
        if _DENIED.search(text[max(0, start - 60) : start]):
            return None
        shown, end = _with_unit(text, _right_side(value), end)
        return Stated(_with_doubt(text, start, end, shown or value), "last")
    whole = text.strip(" \n\t.*`\"'")
    return Stated((whole,), "last") if re.fullmatch(r"\(?[A-Za-z]{1,20}\)?", whole) else None  # "B", "east"


def _right_side(value: str) -> str:
    """The end of a chain of computations; an equation with variables stays whole."""
    aligned = _ALIGNED.match(value.strip())
    if aligned is not None:
        lines = [line for line in aligned[2].split("\\\\") if line.strip(" \n&.")]
        value = (lines[-1] if lines else "").rpartition("=")[2].replace("&", " ").strip(" \n.,") or value
    if "," in value or OR in value or "\\begin" in value:
        return value
    sides = _EQUALS.split(value)
    if len(sides) > 1 and not re.search(r"(?<![\\A-Za-z])[A-Za-z]", "".join(sides[:-1])):
        return sides[-1].strip() or value
    return value
