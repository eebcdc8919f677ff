r"""Mathematical values in running text: where one begins, what belongs to it, and where prose goes on.

A value is a run of numbers, operators, brackets, LaTeX and single letters, with formulas in ``$...$``, ``\(...\)`` and
``\[...\]`` taken in whole. "and", "or" and commas between values make a list of them. It takes time linear in the text.
"""

from __future__ import annotations

import re

#: Stands in a value where the text says "or".
OR = "\x1f"
_LONGEST = 2_000  # characters of one formula in dollars or brackets

_FORMULA = re.compile(
    rf"\$\$(?P<a>[^$]{{1,{_LONGEST}}}?)\$\$|\\\[(?P<b>.{{1,{_LONGEST}}}?)\\\]|\\\((?P<c>.{{1,{_LONGEST}}}?)\\\)"
    rf"|\$(?P<d>(?:\\.|[^$\\\n]){{1,{_LONGEST}}}?)\$(?![0-9])",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?:\\?[$€£¥]\s?)?-?(?:[0-9]+(?:(?:,|\{,\}|\\,|,\\!)[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+(?![0-9A-Za-z]))?"
    r"(?P<percent>\s?(?:\\?%|per\s?cent\b))?"
)
_ENVIRONMENT = re.compile(rf"\\begin\{{(\w+\*?)\}}.{{0,{_LONGEST}}}?\\end\{{\1\}}", re.DOTALL)
_COMMAND = re.compile(
    r"\\(?:text|mbox|mathrm|textbf|textit|mathbf|operatorname)\s*\{[^{}\n]*\}|\\[A-Za-z]+|\\[,;:!%${}| ]"
)
_FUNCTION = re.compile(r"(?:sqrt|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi|infinity|inf|mod)\b")
_OPERATOR = re.compile(
    r"(?<=[0-9A-Za-z)\]}])\*\*(?=[-(]?[0-9A-Za-z])|(?<!\*)\*(?!\*)|[-+/^_=<>()\[\]{}|!≤≥≠±×÷·√π∞°²³∪∩]|:(?=\s?[0-9])"
)
_BOLD_RESULT = re.compile(r"(?:\*{1,2}|__)(?=[-$\\0-9A-Za-z.])")
_LETTER = re.compile(r"[A-Za-zα-ω](?![A-Za-z'’])")
_JOIN = re.compile(r"\s*(?:[,;]\s*(?:(?:and|or)\b)?|\b(?:and|or)\b)\s*")
_STARTS = re.compile(r"(?<!\^)(?<!\^\{)[0-9]|\$(?!\^)|[\\(\[+√π∞€£¥±|]|-(?=\s?[0-9$\\(.A-Za-z])|\.(?=[0-9])|(?<![A-Za-z])(?:sqrt|sin|cos|tan|log|ln|pi|infinity)\b"
                     r"|(?<![A-Za-z])[A-Za-z](?=\s?[=<>≤≥^(]\s?\S)")  # fmt: skip
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\b")
_PROSE = re.compile(r"[A-Za-z]{3,}\s+[A-Za-z]{2,}")
_CONTENT = re.compile(
    r"[0-9π∞√]|\\(?!(?:text|left|right|quad|qquad|displaystyle)\b)[A-Za-z]+|(?<![A-Za-z])(?:pi|infinity)\b"
)
_ALONE = re.compile(r"\\?[A-Za-zα-ω]")


def value_at(text: str, position: int) -> tuple[str | None, int]:
    """The value that begins at ``position`` and the place behind it; no value (None) where prose or a box stands there."""
    pieces: list[str] = []
    i, end, formula = position, position, False
    while i < min(len(text), position + _LONGEST):
        spaced = text[i] in " \t"
        while i < len(text) and text[i] in " \t":
            i += 1
        join = _JOIN.match(text, i) if pieces else None
        if join is not None:
            if _STARTS.match(text, join.end()) is None or "\n\n" in join[0]:
                break
            pieces.append(OR if "or" in join[0] else ", ")
            i = join.end()
            continue
        step = _token(text, i, pieces, spaced)
        if step is None:
            break
        piece, i, is_formula = step
        formula = formula or is_formula
        pieces.append((" " if spaced and pieces else "") + piece)
        end = i
    value = _trimmed("".join(pieces))
    if not value or not (formula or _CONTENT.search(value) or _ALONE.fullmatch(value)):
        return None, max(end, position)
    return value, end


def _token(text: str, i: int, pieces: list[str], spaced: bool) -> tuple[str, int, bool] | None:
    """One piece of a value at ``i``, the place behind it, and whether it is a whole formula."""
    if i >= len(text) or _BOX.match(text, i):
        return None
    formula = _FORMULA.match(text, i)
    if formula is not None and "\\boxed" not in formula[0]:
        inside = next(group for group in formula.groups() if group is not None)
        if formula["d"] is None or not _PROSE.search(re.sub(r"\\[A-Za-z]+(?:\{[^{}]*\})?", "", inside)):
            return inside.strip(), formula.end(), True
    number = _NUMBER.match(text, i)
    if number is not None and not (number[0].startswith("-") and pieces and pieces[-1].strip()[-1:].isalnum()):
        plain = number[0][: number.start("percent") - i] + "\\%" if number["percent"] else number[0]
        return plain, number.end(), False
    bold = _BOLD_RESULT.match(text, i)
    if bold is not None and pieces and pieces[-1].strip() in ("=", "≈", "\\approx"):
        return "", bold.end(), False
    for pattern in (_ENVIRONMENT, _COMMAND, _FUNCTION, _OPERATOR):
        match = pattern.match(text, i)
        if match is not None:
            return ("^" if match[0] == "**" else match[0]), match.end(), False
    letter = _LETTER.match(text, i)
    if letter is None:
        return None
    before = pieces[-1].strip()[-1:] if pieces else ""
    after = text[letter.end() : letter.end() + 2].lstrip()[:1]
    # A lone letter belongs to a formula; "5 a day" and "I" do not.
    command = bool(pieces) and re.fullmatch(r"\s*(?:\\[A-Za-z]+|sin|cos|tan|cot|sec|csc|log|ln|exp)", pieces[-1])
    if command or (before and before in "+-*/^_=<>([{|≤≥·×") or (after and after in "+-*/^_=<>)]}|≤≥"):
        return letter[0], letter.end(), False
    if before and not spaced:
        return letter[0], letter.end(), False
    return (letter[0], letter.end(), False) if not pieces and after in ("", ".", ",", "\n", "*") else None


def _trimmed(value: str) -> str:
    """Without dangling operators and unmatched brackets at either end; nothing where there is no end to them."""
    for _ in range(50):
        cut = value.strip().rstrip(" ,;:=+-*/^_<>|&(." + OR).removesuffix("\\[").removesuffix("\\(").strip()
        cut = cut.lstrip(" ,;:=*/^_&" + OR)
        depth = lowest = 0
        for c in cut:
            depth += (c in "([") - (c in ")]")
            lowest = min(lowest, depth)
        if depth > 0 and lowest == 0 and cut[:1] in ("(", "["):
            cut = cut[1:]
        elif lowest < 0 and cut[-1:] in (")", "]"):
            cut = cut[:-1]
        if cut == value:
            return value
        value = cut
    return ""


def values(text: str) -> list[tuple[int, int, str]]:
    """Every value of ``text`` in order: (start, end, value)."""
    found = []
    i = 0
    while (start := _STARTS.search(text, i)) is not None:
        value, end = value_at(text, start.start())
        if value is not None:
            found.append((start.start(), end, value))
        i = max(end, start.end())
    return found
