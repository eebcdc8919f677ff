"""Runs asserts against a solution, inside the sandbox; its text is what the sandbox starts. Standard library only.

Input: JSON with ``token``, ``code`` and ``tests``. Output: a line ``token k`` for every test k that passes. What the solution
prints goes nowhere. The token keeps a solution from printing such lines itself, and ``sys.exit`` from ending well; a
solution that searches the interpreter for the token is not stopped.
"""

import ast
import json
import os
import sys


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
    """Makes ``assert a == b`` compare plain values as such, whatever ``a.__eq__`` says."""

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
            call = ast.Call(ast.Name("__same__", ast.Load()), [test.left, test.comparators[0]], [])
            return ast.copy_location(ast.Assert(call, node.msg), node)
        return node


_PLAIN = (int, float, complex, bool, str, bytes, type(None))
_HOLDING = (list, tuple, set, frozenset, dict)


def _plain(
    value: object, kind: type = type, plain: tuple[type, ...] = _PLAIN, holding: tuple[type, ...] = _HOLDING
) -> bool:
    of = kind(value)
    if of in plain:
        return True
    if of is dict:
        return all(_plain(k) and _plain(v) for k, v in value.items())  # type: ignore[attr-defined]
    return of in holding and all(_plain(v) for v in value)  # type: ignore[attr-defined]


def _same(left: object, right: object) -> bool:
    if _plain(left) != _plain(right) and not (_library(left) or _library(right)):
        return False  # an object of the solution's own that claims to equal a number
    result = left == right
    return bool(result.all()) if hasattr(result, "all") else bool(result)


def _library(value: object) -> bool:
    """Whether a value is of a library's type: a deque, a Counter, an array."""
    return type(value).__module__ not in ("solution", "builtins", "__main__")


if __name__ == "__main__":
    main()
