r"""Whether two written answers are equal: exact rules for plain numbers and words first, math-verify for the rest.

:func:`quick` decides what needs no algebra, in microseconds and in any process. :func:`judge` runs in a worker process: it
parses both texts with math-verify and compares, behind checks for what math-verify takes for equal and is not (see
``docs/verifiers.md``). math-verify reads at most 2,000 characters, and no number of more than 100,000 bits is worked out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from dopr.tasks.pool import WorkerPool
from dopr.tasks.quantities import equal, read_quantity, read_ratio, simplified, units_of

LONGEST = 2_000
_DEEPEST = 60
_BITS = 100_000.0

_WRAPPERS = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|rm|bf)\s*\{([^{}]*)\}")
_BOLD = re.compile(
    r"\\(?:textbf|mathbf|boldsymbol|bold|emph|textit|displaystyle|mathbf)\s*(?:\{([^{}]*)\}|(?![A-Za-z{]))"
)
_OUTER = re.compile(
    r"\A\s*(?:\{(?P<d>[^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|\((?P<e>\s*[0-9.]+\s*)\)|\$\$?(?P<a>[^$]*)\$\$?|\\\((?P<b>.*)\\\)|\\\[(?P<c>.*)\\\])\s*\.?\s*\Z",
    re.DOTALL,
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'’-]*")
_OPTION = re.compile(r"\(?\s*([A-Ja-j])\s*\)?\.?")
_ALTERNATIVES = re.compile(r"\\(?:text|mbox)\s*\{\s*OR\s*\}|\bOR\b")
_LABELLED = re.compile(
    r"(?:\\(?:text|mathrm|mbox|textrm)\s*\{\s*)?\(([A-Ja-j])\)\s*\}?[\s~\\:]*(?:q?quad\b)?\s*(?=[0-9$\\-])(.+)"
)
_MARKS = re.compile(r"[(\[{)\]},]|(?<![<>!:=])=(?!=)|\\in(?![A-Za-z])")
_DOUBT = re.compile(r"\b(?:or|maybe|perhaps|possibly|either|not|n't|isn't|wrong|unknown)\b", re.IGNORECASE)
_JOINED = re.compile(
    r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])", re.IGNORECASE
)
_SIDE_BY_SIDE = re.compile(
    r"(?<![\\0-9_^{])[0-9]+(?:\.[0-9]+)?(?:\s|(?<!\\)\\(?:[,;:! ]|q?quad(?![A-Za-z])))+[0-9]+(?![0-9]*\s*/)"
)
_BASE = re.compile(r"[0-9]\s*_\s*\{?\s*([0-9]+)\s*\}?")
_SYMBOLS = str.maketrans({"×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
                            "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "²": "^2", "³": "^3", "−": "-", "°": r"^\circ "})  # fmt: skip
_REWRITES: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"√\s*\(([^()]*)\)|√\s*([0-9]+|[A-Za-z])|(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)"), lambda m: rf"\sqrt{{{m[1] or m[2] or m[3]}}}"),
    (re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|cot|sec|csc|ln|log|exp)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"!="), r"\\ne "),
    (re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])"), r" \\cup "),
    (re.compile(r"(?<![0-9A-Za-z_.])([0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]+)(?![0-9A-Za-z])"), r"\1 \\cdot 10^{\2}"),
    (re.compile(r"(?<=[0-9])\s*(?:\\left)?\(\s*(?=[^(),]*\))"), r" \\cdot ("),
]  # fmt: skip


def prepared(text: str) -> str:
    """A gold or an answer without what only sets it: dollars around it, bold type, braces around all of it."""
    before = None
    while text != before:
        before = text
        text = _BOLD.sub(r"\1", text.strip()).rstrip(".,;") if "\\" in text else text.strip().rstrip(".,;")
        match = _OUTER.match(text)
        if match is not None:
            inside = next(group for group in match.groups() if group is not None)
            if "\\(" not in inside and "\\[" not in inside:
                text = inside.strip()
    return text


@lru_cache(maxsize=8192)
def alternatives(gold: str) -> tuple[str, ...]:
    """The golds of which one is enough: what a capital OR separates."""
    return tuple(part for part in (prepared(p) for p in _ALTERNATIVES.split(gold)) if part)


def quick(gold: str, answer: str) -> bool | None:
    """Whether ``answer`` equals ``gold``; None where only algebra can tell."""
    if not answer or len(answer) > max(LONGEST, 2 * len(gold)) or _depth(answer) > max(_DEEPEST, _depth(gold)):
        return False
    if _squeezed(gold) == _squeezed(answer):
        return True
    if (right := _right_side(answer)) and not _right_side(gold):
        return quick(gold, right)
    labelled = _LABELLED.fullmatch(answer)  # an option with its letter and its content: (C) 32
    if labelled is not None and not _LABELLED.fullmatch(gold):
        return quick(gold, labelled[1] if _OPTION.fullmatch(_unwrapped(gold)) else labelled[2])
    words = _words_of(gold)
    if words is not None:
        option = _OPTION.fullmatch(_unwrapped(answer)) if len(words) == 1 else None
        return words == (option[1].lower() if option else _words_of(answer))
    if (ratio := read_ratio(gold)) is not None and (other := read_ratio(answer)) is not None:
        return ratio == other
    wanted = read_quantity(gold)
    if wanted is not None:
        given = read_quantity(answer)
        if given is not None:
            return equal(wanted, given)
    return False if _beside_the_point(gold, answer) else None


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
        r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z]{2})|\\(?:alpha|beta|gamma|theta|lambda|mu|omega|phi)\b", text[:cut]
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
    if not _DOUBT.search(gold) and _DOUBT.search(_JOINED.sub("", answer)):
        return True
    if any(re.search(r"[0-9]", inside) for inside in _WRAPPERS.findall(answer)) and not _WRAPPERS.search(gold):
        return True
    if "?" in answer and "?" not in gold:
        return True
    if "\\begin" not in answer and _SIDE_BY_SIDE.search(simplified(answer)):
        return True
    if (base := _BASE.search(gold)) and (other := _BASE.search(answer)) and base[1] != other[1]:
        return True
    return {_bracket(gold), _bracket(answer)} == {"set", "tuple"}


def _bracket(text: str) -> str:
    """Whether a list stands between braces or between parentheses."""
    plain = simplified(text)
    if "," not in plain:
        return ""
    return "set" if plain.startswith("\\{") else "tuple" if plain[:1] in ("(", "[") and "\\cup" not in plain else ""


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
    pool = WorkerPool("dopr.tasks.math_equal:kind", timeout=timeout)
    for gold, kind in zip(hard, pool.run(hard), strict=True):
        kinds[gold] = kind if isinstance(kind, str) else "unread"
    pool.close()
    return [kinds[gold] for gold in golds]


def _plain_kind(gold: str) -> str:
    text = prepared(gold)
    if read_quantity(text) is not None:
        return "number"
    return "ratio" if read_ratio(text) else "text" if _words_of(text) is not None else ""


# -- in a worker -----------------------------------------------------------------------------------------------------


def judge(item: Any) -> list[bool] | str | None:
    """Runs in a worker: ``[golds, answers, seconds per step]`` to whether each answer equals one of the golds.

    "late" where math-verify gave up a step for its time, None where no gold can be read.
    """
    import math_verify  # noqa: F401 - loaded while the worker starts, outside the time limit of an item

    if item is None:
        return None
    golds, answers, step = item
    wanted = [(gold, parsed) for gold in golds if (parsed := _parse(gold, step))]
    if not wanted:
        return None
    try:
        return [any(_same(gold, parsed, answer, step) for gold, parsed in wanted) for answer in answers]
    except _LateError:
        return "late"


def kind(gold: Any) -> str | None:
    """Runs in a worker: what math-verify makes of a gold."""
    import math_verify  # noqa: F401 - as in judge
    from latex2sympy2_extended.logic import And
    from sympy import Eq, FiniteSet, Interval, MatrixBase, Set, Tuple
    from sympy.core.relational import Relational

    if gold is None:
        return None
    names = {
        "matrix": MatrixBase, "interval": Interval, "list or set": FiniteSet, "set": Set, "tuple": Tuple,
        "equation": Eq, "relation": (Relational, And),
    }  # fmt: skip
    parsed = [_parse(part, 5) for part in alternatives(gold)]
    if not parsed or any(not one or isinstance(one[0], str) for one in parsed):
        return "unread"
    return next((name for name, types in names.items() if isinstance(parsed[0][0], types)), "expression")


class _LateError(Exception):
    pass


@lru_cache(maxsize=4096)
def _parse(text: str, step: int) -> tuple[Any, ...]:
    from math_verify import parse

    text = re.sub(r"(?<!\\)\$", "", _JOINED.sub(", ", simplified(text)).translate(_SYMBOLS))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return tuple(parse(f"\\boxed{{{text}}}", parsing_timeout=step))


def _same(gold: str, wanted: tuple[Any, ...], answer: str, step: int) -> bool:
    from math_verify import verify
    from math_verify.errors import TimeoutException

    given = _parse(answer, step)
    if not given or any(map(_untrue, given)):
        return False
    if any(_bits(e) > _BITS for e in (*wanted, *given) if not isinstance(e, str)):
        return wanted == given
    try:
        return bool(
            verify(
                list(wanted), list(given), float_rounding=_decimals(wanted[0]), allow_set_relation_comp=True,
                timeout_seconds=step, raise_on_error=True,
            )
        )  # fmt: skip
    except TimeoutException:
        raise _LateError from None
    except Exception:  # noqa: BLE001 - sympy raises all kinds on what cannot be compared
        return False


def _untrue(expression: Any) -> bool:
    """Whether it is an equation between numbers that are not equal: ``1 = 2 = 5``."""
    from sympy import And, Eq
    from sympy.core.relational import Relational

    if isinstance(expression, And):
        return any(map(_untrue, expression.args))
    if not isinstance(expression, Relational) or expression.free_symbols:
        return False
    left, right = expression.lhs, expression.rhs
    if _untrue(left):
        return True
    left = left.rhs if isinstance(left, Eq) else left
    if max(_bits(left), _bits(right)) > _BITS:
        return True
    try:
        return isinstance(expression, Eq) and abs(float((left - right).evalf())) > 1e-6 * max(
            1.0, abs(float(right.evalf()))
        )
    except (TypeError, ValueError, OverflowError):
        return False


def _decimals(gold: Any) -> int:
    """Decimals to compare floats at: six, and for a small gold six significant digits."""
    try:
        size = abs(float(gold.evalf(6))) if not gold.free_symbols and _bits(gold) < _BITS else 1.0
    except (AttributeError, TypeError, ValueError, OverflowError):
        return 6
    return 6 if not 0 < size < 1 else min(60, max(6, 5 - math.floor(math.log10(size))))


def _bits(expression: Any) -> float:
    """About how many bits the numbers in an unevaluated expression would need, were they worked out."""
    from sympy import Basic, Integer, Pow, factorial, preorder_traversal

    if not isinstance(expression, Basic):
        return 0.0
    most = 0.0
    for node in preorder_traversal(expression):
        if isinstance(node, Pow | factorial) and not node.free_symbols:
            most = max(most, _log2(node))
        elif isinstance(node, Integer):
            most = max(most, float(int(node).bit_length()))
    return most


def _log2(node: Any) -> float:
    """Upper estimate of ``log2 |node|`` for a constant expression, at most infinity."""
    from sympy import Integer, Pow, factorial

    if isinstance(node, Integer):
        return float(max(int(node).bit_length(), 1))
    if isinstance(node, Pow):
        base, exponent = _log2(node.base), _log2(node.exp)
        return abs(base) * 2.0**exponent if exponent < 900 else math.inf
    if isinstance(node, factorial):
        argument = _log2(node.args[0])
        return argument * 2.0**argument if argument < 900 else math.inf
    return sum(_log2(arg) for arg in node.args) if node.args else 1.0
