"""Runs asserts against a solution, inside the sandbox; its text is what the sandbox starts. Standard library only.

Input: JSON with ``token``, ``code`` and ``tests``. Output: a line ``token k`` for every test k that passes. What the solution
prints goes nowhere. The token keeps a solution from printing such lines itself, and ``sys.exit`` from ending well; a
solution that searches the interpreter for the token is not stopped.
"""

import ast
import json
import os
import sys
from typing import Any


def main() -> None:
    """Read the order, load the solution, run the tests."""
    order = json.load(sys.stdin)
    token, tests = order["token"], order["tests"]
    out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)
    # Taken now: a solution may change the modules and builtins that it shares with this.
    write, parse, fix, compile_, exec_, same, transform = (
        os.write, ast.parse, ast.fix_missing_locations, compile, exec, _same, _Compare().visit,
    )  # fmt: skip
    trees = [compile_(fix(transform(parse(test))), f"<test {k}>", "exec") for k, test in enumerate(tests)]
    names = {"__name__": "solution"}
    exec_(compile_(order["code"], "<solution>", "exec"), names)
    for k, tree in enumerate(trees):
        try:
            exec_(tree, names | {"__same__": same})
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


_PLAIN = (int, float, complex, bool, str, bytes, type(None))
_HOLDING = (list, tuple, set, frozenset, dict)


# What these need is bound as defaults, since a solution may change builtins and this module.
def _plain(value: Any, kind: Any = type, plain: Any = _PLAIN, holding: Any = _HOLDING, each: Any = all) -> bool:
    of = kind(value)
    if of in plain:
        return True
    if of is dict:
        return each(_plain(k) and _plain(v) for k, v in value.items())
    return of in holding and each(_plain(v) for v in value)


def _library(value: object, kind: Any = type, modules: Any = sys.modules, get: Any = getattr) -> bool:
    """Whether a value is of a library's type: a deque, a Counter, an array. A class that only says so is not in that library."""
    of = kind(value)
    named = of.__module__ not in ("solution", "builtins", "__main__")
    return named and get(modules.get(of.__module__), of.__name__, None) is of


def _same(
    left: object, right: object, plain: Any = _plain, library: Any = _library, truth: Any = bool, has: Any = hasattr
) -> bool:
    if plain(left) != plain(right) and not (library(left) or library(right)):
        return False  # an object of the solution's own that claims to equal a number
    result: Any = left == right
    return truth(result.all()) if has(result, "all") else truth(result)


if __name__ == "__main__":
    main()
