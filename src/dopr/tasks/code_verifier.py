r"""The code verifier: a completion's Python program against tests, in a sandbox.

The tests of a problem stand in its column ``tests``, as JSON or as the list or object itself:

* ``["assert f(2) == 4", ...]``: each a test, run after the program in one process;
* ``{"inputs": [...], "outputs": [...]}`` or ``[{"input": ..., "output": ...}, ...]``: standard input and what must be printed,
  white space at the ends of lines aside, a process for each; with ``"fn_name"`` arguments and result of that function,
  the result as JSON would hold it (tuples are lists, keys are text).

The program is the last block of the completion that is fenced as Python (```` ```python ````), else the last that names no language, else the
last of any; or all of it where there is no fence.
"""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dopr.errors import RewardError
from dopr.tasks import code_harness
from dopr.tasks.answers import structured_text
from dopr.tasks.pool import Failure
from dopr.tasks.sandbox import Limits, isolation, run_python
from dopr.tasks.verifiers import Judgement, Verifier

_FENCED = re.compile(r"```[ \t]*([^\s`]{0,30})[^\n`]{0,200}\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = frozenset(["python", "python3", "py", "py3"])
_HARNESS = Path(code_harness.__file__).read_text(encoding="utf-8")
#: The longest wall time of one program, whatever the reward timeout.
MOST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Tests:
    """The tests of one problem: asserts, or pairs of input and output."""

    asserts: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.asserts) + len(self.pairs)


def code(option: str = "", *, timeout: float, limits: Limits | None = None) -> Verifier:
    """Share of the tests that the completion's program passes, or only whether it passes all.

    Args:
        option: ``partial`` for the share; by default 1.0 for all tests and 0.0 for less.
        timeout: seconds for all tests of one completion.
        limits: what one process may use.

    Raises:
        RewardError: an unknown option, or a machine on which programs cannot be run.
    """
    if option not in ("", "partial"):
        raise RewardError(f"The reward 'code:{option}' is not known. Use code, or code:partial for partial credit.")
    isolation()  # tried out now rather than in the first round
    limits = limits or Limits(wall_seconds=min(timeout, MOST_SECONDS))

    def judge(texts: Sequence[str], golds: Sequence[str]) -> list[Judgement]:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            return list(pool.map(one, texts, golds))

    def one(text: str, gold: str) -> Judgement:
        tests = read_tests(gold)
        if tests is None:
            return None
        passed, timed_out = run_tests(
            program_of(text), tests, limits=limits, seconds=timeout, all_of_them=option == "partial"
        )
        if timed_out and not passed:
            return Failure.TIMEOUT
        return passed / len(tests) if option == "partial" else float(passed == len(tests))

    return Verifier(
        "code", judge, lambda text: program_of(text).strip() or None, "```python\n{}\n```".format, column="tests"
    )


def program_of(text: str) -> str:
    """The program in a completion."""
    text = text.rpartition("</think>")[2]
    # A block in a numbered list is indented.
    fenced = [
        (language.lower(), textwrap.dedent(program) if program.lstrip("\n")[:1] in (" ", "\t") else program)
        for language, program in _FENCED.findall(text)
    ]
    for kind in (_PYTHON, {""}):
        if chosen := [program for language, program in fenced if language in kind]:
            return chosen[-1]
    return fenced[-1][1] if fenced else text


def read_tests(gold: str | list[Any] | dict[str, Any]) -> Tests | None:
    """The tests that a ``tests`` column holds; None where they cannot be read, even as JSON, or there are none."""
    text = gold if isinstance(gold, str) else structured_text(gold)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = [gold]  # asserts as they stand
    if isinstance(value, dict):
        listed = next((value[name] for name in ("tests", "asserts", "test_list") if name in value), None)
        value = value if listed is None else listed
    if isinstance(value, str):
        value = [value]
    if isinstance(value, dict):
        return _paired(value)
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(test, dict) and "input" in test and "output" in test for test in value):
        return Tests(pairs=tuple((_lines(test["input"]), _lines(test["output"])) for test in value))
    if all(isinstance(test, str) and _parses(test) for test in value):
        return Tests(asserts=tuple(value))
    return None


def _paired(value: dict[str, Any]) -> Tests | None:
    inputs, outputs = value.get("inputs"), value.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
        return None
    name = value.get("fn_name")
    if name is None:
        return Tests(pairs=tuple((_lines(i), _lines(o)) for i, o in zip(inputs, outputs, strict=True)))
    if not str(name).isidentifier():
        return None
    if not all(isinstance(given, list) for given in inputs):
        return None
    # LeetCode's form: methods of a class Solution count as functions.
    find = f"(Solution().{name} if 'Solution' in globals() else {name})"
    return Tests(asserts=tuple(_call(find, i, o) for i, o in zip(inputs, outputs, strict=True)))


def _call(find: str, given: list[Any], wanted: Any) -> str:
    """The assert of one call; a result may stand alone in a list, as APPS has them."""
    if isinstance(wanted, list) and len(wanted) == 1:
        return f"result = __json__({find}(*{given!r}))\nassert result == {wanted!r} or result == {wanted[0]!r}"
    return f"assert __json__({find}(*{given!r})) == {wanted!r}"


def _lines(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _parses(test: str) -> bool:
    try:
        return any(isinstance(node, ast.Assert | ast.Raise | ast.Call) for node in ast.walk(ast.parse(test)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def run_tests(
    program: str, tests: Tests, *, limits: Limits, seconds: float, all_of_them: bool, level: str | None = None
) -> tuple[int, bool]:
    """Tests passed, and whether time ran out.

    Args:
        program: Python text.
        tests: at least one.
        limits: of one process.
        seconds: for all tests together.
        all_of_them: whether to go on after a failed test.
        level: of the sandbox.
    """
    if tests.asserts:
        token = secrets.token_hex(16)
        order = {"token": token, "code": program, "tests": tests.asserts}
        outcome = run_python(_HARNESS, json.dumps(order).encode(), limits=limits, level=level)
        said = outcome.stdout.decode(errors="replace").splitlines()
        return sum(f"{token} {k}" in said for k in range(len(tests))), outcome.status == "timeout"
    passed, deadline = 0, time.monotonic() + seconds
    for given, wanted in tests.pairs:
        if time.monotonic() > deadline:
            return passed, True
        outcome = run_python(program, given.encode(errors="replace"), limits=limits, level=level)
        if outcome.status == "ok" and _trimmed(outcome.stdout.decode(errors="replace")) == _trimmed(wanted):
            passed += 1
        elif not all_of_them:
            return passed, outcome.status == "timeout"
    return passed, False


def _trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]
