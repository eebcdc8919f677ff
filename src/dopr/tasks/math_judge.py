"""Compares answers by algebra, in a worker process: math-verify, behind checks for what it takes for equal and is not.

No number of more than 100,000 bits is worked out. docs/verifiers.md lists where this departs from plain math-verify.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dopr.tasks.math_equal import JOINED, alternatives
from dopr.tasks.quantities import simplified

_BITS = 100_000.0
_SYMBOLS = str.maketrans({"×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
                            "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "²": "^2", "³": "^3", "−": "-", "°": r"^\circ "})  # fmt: skip
_REWRITES: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"\\\\\s*\[[0-9.]+\s*(?:pt|ex|em|mm|cm|in)\]"), r"\\\\ "),
    (re.compile(r"\\[bB]igg?[lrm]?(?![A-Za-z])"), ""),
    (re.compile(r"√\s*\(([^()]*)\)|√\s*([0-9]+|[A-Za-z])|(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)"), lambda m: rf"\sqrt{{{m[1] or m[2] or m[3]}}}"),
    (re.compile(r"\\(?:operatorname|mathrm)\s*\{\s*(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp)\s*\}"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|cot|sec|csc|ln|log|exp)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"(?<=[0-9)])!="), "! ="),
    (re.compile(r"!="), r"\\ne "),
    (re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])"), r" \\cup "),
    (re.compile(r"(?<![0-9A-Za-z_.])([0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]+)(?![0-9A-Za-z])"), r"\1 \\cdot 10^{\2}"),
    (re.compile(r"(\\(?:log|ln|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan)\s*[_^])\s*([0-9]+)(?=\s*(?:\\left)?\s*\()"), r"\1{\2}"),
    (re.compile(r"(?<=[0-9])\s*(?:\\left)?\(\s*(?=[^(),]*\))"), r" \\cdot ("),
]  # fmt: skip
#: "1, 2, and 3" after its "and" has become a comma.
_DOUBLE_COMMA = re.compile(r",(?:\s|\\[,;:! ]|\\q?quad(?![A-Za-z]))*(?=,)")
_NUMBER = re.compile(r"\\[dt]?frac\s*(?:\{[^{}]*\}|[0-9])\s*(?:\{[^{}]*\}|[0-9])|[0-9]+(?:\.[0-9]+)?")
#: Words behind a value: with a comma or nothing behind them they are its unit, with anything else a condition or a second value.
_UNIT = r"(?<=[0-9A-Za-z})\]])\s*\\(?:text|textrm|mbox)\s*\{(?!\s*for (?:all|any|every|each|integer|some))[^{}]*[A-Za-z]{2}[^{}]*\}"
_UNIT_OF_PART = re.compile(_UNIT + r"(?:\s*\^\s*\{?[0-9]\}?)?(?=\s*(?:,|[)\]}]*\s*\Z))")
_MORE_BEHIND = re.compile(
    _UNIT
    + r"(?:\s*\^\s*\{?[0-9]\}?)?(?:\s|\\[,;:! ])*(?=[0-9A-Za-z(\[{]|\\(?!(?:cdot|times)\s*\\(?:text|mathrm))[a-z])"
)


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
    from math_verify import LatexExtractionConfig, parse

    listed = _DOUBLE_COMMA.sub("", JOINED.sub(", ", simplified(text)))
    if "," in listed:
        listed = _UNIT_OF_PART.sub("", listed)
    if _MORE_BEHIND.search(listed):  # math-verify drops it
        return ()
    text = re.sub(r"(?<!\\)\$", "", listed.translate(_SYMBOLS))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = f"\\boxed{{{text}}}"
    read = parse(
        text, parsing_timeout=step, extraction_mode="first_match",
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
    )  # fmt: skip
    if all(isinstance(one, str) for one in read) and len(_NUMBER.findall(text)) < 2:
        read = parse(text, parsing_timeout=step)  # by default it takes the last number of what it cannot read
    return tuple(map(_as_union, read))


def _as_union(expression: Any) -> Any:
    """``x < 1 or x > 3``, which has been read as two relations, as the set of such x: no x can be both."""
    from sympy import Eq, FiniteSet, Union
    from sympy.core.relational import Relational

    if not isinstance(expression, FiniteSet) or len(expression.free_symbols) != 1:
        return expression
    parts, unknowns = list(expression.args), expression.free_symbols
    simple = all(
        isinstance(part, Relational) and not isinstance(part, Eq) and any(side in unknowns for side in part.args)
        and any(side.is_extended_real and not side.free_symbols and _bits(side) < _BITS for side in part.args)
        for part in parts
    )  # fmt: skip
    sets = [part.as_set() for part in parts] if simple else []
    apart = all(a.is_disjoint(b) for i, a in enumerate(sets) for b in sets[:i])
    return Union(*sets) if len(sets) > 1 and apart else expression


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
