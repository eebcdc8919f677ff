"""Runs asserts against a solution, inside the sandbox; its text is what the sandbox starts. Standard library only.

Input: JSON with ``token``, ``code`` and ``tests``. Output: a line ``token k`` for every test k that passes. What the solution
prints goes nowhere. The token keeps a solution from printing such lines itself, and ``sys.exit`` from ending well; a
solution that searches the interpreter for the token is not stopped.
"""

import ast
import collections
import datetime
import decimal
import fractions
import json
import os
import sys
from types import ModuleType
from typing import Any


def main() -> None:
    """Read the order, load the solution, run the tests."""
    order = json.load(sys.stdin)
    token, tests = order["token"], order["tests"]
    out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)
    # Taken now: a solution may change the modules and builtins that it shares with this.
    write, parse, fix, compile_, exec_, transform = (
        os.write, ast.parse, ast.fix_missing_locations, compile, exec, _Compare().visit,
    )  # fmt: skip
    ours = {"__same__": _same, "__json__": _json}
    trees = [compile_(fix(transform(parse(test))), f"<test {k}>", "exec") for k, test in enumerate(tests)]
    # Where dataclasses look up annotations; as __main__, too, so that importing that does not lead here.
    module = sys.modules["solution"] = sys.modules["__main__"] = ModuleType("solution")
    names = module.__dict__
    exec_(compile_(order["code"], "<solution>", "exec"), names)
    for k, tree in enumerate(trees):
        try:
            exec_(tree, names | ours)
        except BaseException:  # noqa: BLE001 - any way to leave a test but its end is a failure
            continue
        write(out, f"{token} {k}\n".encode())


class _Compare(ast.NodeTransformer):
    """Makes the comparisons that an assert hangs on compare plain values as such, whatever their ``__eq__`` and ``__ne__`` say."""

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        node.test = self._truth(node.test)
        return node

    def _truth(self, test: ast.expr) -> ast.expr:
        """An expression of which only the truth counts: not ``(a == b).all()``, whose comparison may give an array."""
        if isinstance(test, ast.BoolOp):
            test.values = [self._truth(value) for value in test.values]
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test.operand = self._truth(test.operand)
        elif isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id in ("all", "any"):
            for argument in test.args:
                if isinstance(argument, ast.GeneratorExp | ast.ListComp):
                    argument.elt = self._truth(argument.elt)
        elif isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.NotEq):
            call = ast.Call(ast.Name("__same__", ast.Load()), [test.left, test.comparators[0]], [])
            return call if isinstance(test.ops[0], ast.Eq) else ast.UnaryOp(ast.Not(), call)
        return test


# By identity: the == of a class may be its metaclass's.
_PLAIN = frozenset(map(id, (int, float, complex, bool, str, bytes, type(None))))
_HOLDING = frozenset(map(id, (list, tuple, set, frozenset, dict)))
#: Library types that may stand in containers, with their own ``==``. Not any library's: unittest.mock.ANY equals everything.
_HARMLESS = {
    id(kind): (kind.__eq__, issubclass(kind, dict | collections.deque))
    for kind in (
        *(fractions.Fraction, decimal.Decimal, datetime.date, datetime.datetime, datetime.time, datetime.timedelta),
        *(collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque),
    )
}


# What these need is bound as defaults, since a solution may change builtins and this module.
def _plain(
    value: Any, kind: Any = type, plain: Any = _PLAIN, holding: Any = _HOLDING, each: Any = all, known_as: Any = id
) -> bool:
    of = kind(value)
    if known_as(of) in plain:
        return True
    if of is dict:
        return each(_plain(k) and _plain(v) for k, v in value.items())
    return known_as(of) in holding and each(_plain(v) for v in value)


def _known(
    value: Any,
    kind: Any = type,
    plain: Any = _PLAIN,
    holding: Any = _HOLDING,
    harmless: Any = _HARMLESS,
    each: Any = all,
    known_as: Any = id,
    within: Any = issubclass,
    items: Any = dict.items,
    fraction: Any = fractions.Fraction,
    flags: Any = type.__dict__["__flags__"].__get__,
) -> bool:
    """Whether a value is plain or harmless, and so is all that it holds."""
    of = kind(value)
    if known_as(of) in plain:
        return True
    eq, holds = harmless.get(known_as(of), (None, known_as(of) in holding))
    if eq is not None and eq is not of.__eq__:
        return False  # the solution put another in its place
    if holds:
        return each(_known(k) and _known(v) for k, v in items(value)) if within(of, dict) else each(map(_known, value))
    if of is fraction:
        return kind(value._numerator) is kind(value._denominator) is int
    # NumPy's scalars; no Python code makes a type that is not on the heap.
    return eq is not None or (not flags(of) & 1 << 9 and of.__module__ == "numpy" and value.dtype.kind in "biufSU")


def _json(
    value: Any,
    kind: Any = type,
    known: Any = _known,
    is_a: Any = isinstance,
    tuples: Any = tuple.__iter__,
    items: Any = dict.items,
    text: Any = json.dumps,
    size: Any = len,
) -> Any:
    """A result as JSON would hold it, since its test came as JSON: no tuples, and keys are text."""
    if is_a(value, tuple):
        return [_json(v) for v in tuples(value)]
    if kind(value) is list:
        return [_json(v) for v in value]
    if is_a(value, dict) and known(value):
        keyed = {(k if kind(k) is str else text(k)): _json(v) for k, v in items(value)}
        return keyed if size(keyed) == size(value) else value
    return value


def _library(value: object, kind: Any = type, modules: Any = sys.modules, get: Any = getattr) -> bool:
    """Whether a value is of a library's type: an array, a Path. A class that only says so is not in that library, and mocks and proxies equal anything."""
    of = kind(value)
    named = of.__module__ not in ("solution", "builtins", "__main__", "unittest.mock", "weakref", "_pytest.python_api")
    return named and get(modules.get(of.__module__), of.__name__, None) is of


def _same(
    left: object,
    right: object,
    plain: Any = _plain,
    known: Any = _known,
    library: Any = _library,
    truth: Any = bool,
    has: Any = hasattr,
) -> bool:
    if plain(left) != plain(right) and not (library(left) or library(right) or (known(left) and known(right))):
        return False  # an object of the solution's own that claims to equal a number
    result: Any = left == right
    return truth(result.all()) if has(result, "all") else truth(result)


if __name__ == "__main__":
    main()
