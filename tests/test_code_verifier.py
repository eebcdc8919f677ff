from __future__ import annotations

import json
import os
import socket
import time
from datetime import date
from pathlib import Path

import pytest

from dopr.errors import DataError, RewardError
from dopr.tasks.code_verifier import program_of, read_tests
from dopr.tasks.problems import Problem, to_rows
from dopr.tasks.rewards import check_golds, preflight, resolve_rewards
from dopr.tasks.sandbox import Limits, isolation, run_python

# Small, so that an attack that gets through hurts nobody.
TIGHT = Limits(
    wall_seconds=4.0, cpu_seconds=1, memory_bytes=192 << 20, file_bytes=4 << 20, processes=8, output_bytes=1 << 16
)


def run(program: str, stdin: bytes = b"", limits: Limits = TIGHT):
    return run_python(program, stdin, limits=limits)


@pytest.fixture
def walls():
    level = isolation()
    if level != "jail":
        pytest.skip(f"this machine isolates programs by {level!r} only: no namespaces for a file tree of their own")


# -- attacks ---------------------------------------------------------------------------------------------------------


def test_a_program_runs_with_its_input_and_nothing_of_the_parents_environment(monkeypatch):
    monkeypatch.setenv("DOPR_SECRET", "hidden")
    outcome = run("import os, sys; print(sys.stdin.read(), sorted(os.environ), sys.flags.isolated)", b"in")
    assert outcome.status == "ok"
    assert outcome.stdout.decode().split() == [
        "in",
        "['LC_CTYPE',",
        "'OMP_NUM_THREADS',",
        "'OPENBLAS_NUM_THREADS']",
        "1",
    ]


def test_a_fork_bomb_hits_its_limit_and_leaves_nothing_behind():
    before = processes()
    outcome = run("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n")
    assert outcome.status in {"timeout", "error"}
    assert settled(before)


def test_a_fork_bomb_of_daemons_leaves_nothing_behind(walls):
    before = processes()
    run("import os, time\nfor _ in range(20):\n    try:\n        if os.fork() == 0:\n            os.setsid()\n"
        "            os.fork()\n            time.sleep(60)\n    except OSError:\n        pass\nprint('done')\n")  # fmt: skip
    assert settled(before)


def processes() -> int:
    """Living processes of this machine that run a program.py."""
    return sum(b"program.py" in command for command in map(_command, os.listdir("/proc")) if command)


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() if pid.isdigit() else b""
    except OSError:
        return b""


def settled(before: int) -> bool:
    for _ in range(100):
        if processes() <= before:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("program", ["while True: pass", "9 ** 9 ** 9", "import threading; threading.Event().wait(60)"])
def test_an_endless_program_is_stopped(program):
    started = time.monotonic()
    assert run(program).status == "timeout"
    assert time.monotonic() - started < 30


def test_catching_signals_does_not_help():
    program = (
        "import signal\n"
        "for s in range(1, 65):\n"
        "    try:\n        signal.signal(s, lambda *a: None)\n    except (OSError, ValueError):\n        pass\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass\n"
    )
    assert run(program).status in {"timeout", "error"}


def test_a_memory_bomb_hits_its_limit():
    outcome = run("x = bytearray(10**9)")
    assert outcome.status == "error"
    assert b"MemoryError" in outcome.stderr
    assert run("x = []\nwhile True: x.append(bytearray(10**6))").status == "error"


def test_an_output_bomb_is_cut_off():
    outcome = run("while True: print('x' * 1000)")
    assert outcome.status == "output"
    assert len(outcome.stdout) < 1 << 20
    assert run("import sys\nwhile True: sys.stderr.write('x' * 1000)").status == "output"


def test_large_files_are_refused(walls):
    outcome = run("f = open('big', 'wb')\nfor _ in range(100): f.write(bytes(10**6))")
    assert outcome.status == "error"
    many = "for k in range(100):\n    open(f'f{k}', 'wb').write(bytes(10**6))"
    assert run(many).status == "error"


def test_the_parents_files_cannot_be_read(walls, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden")
    for path in (
        secret,
        Path(__file__),
        Path("/etc/passwd"),
        Path.home() / ".bashrc",
        Path(f"/proc/{os.getpid()}/environ"),
    ):
        outcome = run(f"print(open({str(path)!r}).read())")
        assert outcome.status == "error", path
        assert b"Error" in outcome.stderr


def test_nothing_outside_can_be_written(walls, tmp_path):
    targets = [tmp_path / "x", Path(os.__file__).parent / "dopr_x.py", Path("/usr/dopr_x"), Path("/dopr_x")]
    for path in targets:
        outcome = run(f"open({str(path)!r}, 'w').write('x')")
        assert outcome.status == "error", path
        assert not path.exists()
    assert (
        run("import tempfile; tempfile.NamedTemporaryFile().write(b'x'); open('here', 'w').write('x')").status == "ok"
    )


def test_no_other_process_can_be_seen_or_killed(walls):
    program = (
        "import os, signal\n"
        f"pids = [{os.getpid()}, os.getppid(), *range(3, 5000)]\n"
        "hit = []\n"
        "for pid in pids:\n"
        "    if pid in (os.getpid(), 0):\n        continue\n"
        "    try:\n        os.kill(pid, signal.SIGKILL); hit.append(pid)\n"
        "    except OSError:\n        pass\n"
        "print('survived', [p for p in hit if p > 2])\n"
    )
    outcome = run(program)
    assert outcome.stdout.strip() == b"survived []"


def test_killing_everything_kills_only_itself():
    if isolation() == "jail":
        run("import os, signal\nos.kill(-1, signal.SIGKILL)")
    run("import os, signal\nos.killpg(0, signal.SIGKILL)")
    assert run("print(1)").stdout == b"1\n"


def test_no_socket_reaches_anything(walls):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = run(f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)")
    assert outcome.status == "error"
    assert b"Error" in outcome.stderr


def test_privileges_cannot_be_had_back(walls):
    program = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None)\n"
        "print([libc.mount(b'x', b'/usr', b'tmpfs', 0, None), libc.unshare(0x10000000), libc.umount2(b'/usr', 2)])\n"
        "for call in (lambda: os.setuid(0), lambda: os.chroot('/usr')):\n"
        "    try:\n        call(); print('did', os.getuid())\n    except OSError:\n        print('refused')\n"
    )
    lines = run(program).stdout.decode().split("\n")
    assert lines[0] == "[-1, -1, -1]"
    assert lines[1] == "refused" or os.geteuid() != 0  # in a user namespace the program is "root" without any power
    assert lines[2] == "refused"


def test_nothing_is_left_in_the_temporary_directory(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    isolation()
    run("open('x', 'w').write('x')")
    assert list(tmp_path.iterdir()) == []


# -- verdicts --------------------------------------------------------------------------------------------------------

ASSERTS = json.dumps(["assert square(2) == 4", "assert square(3) == 9", "assert square(-1) == 1"])
PAIRS = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})


def fenced(program: str) -> str:
    return f"I would write\n```python\n{program}\n```\nand that is all."


@pytest.mark.parametrize(
    ("program", "tests", "all_or_nothing", "partial"),
    [
        ("def square(x): return x * x", ASSERTS, 1.0, 1.0),
        ("def square(x): return 4 if x == 2 else 9", ASSERTS, 0.0, 2 / 3),
        ("def square(x): return None", ASSERTS, 0.0, 0.0),
        ("def other(x): return x", ASSERTS, 0.0, 0.0),
        ("this is not python", ASSERTS, 0.0, 0.0),
        ("", ASSERTS, 0.0, 0.0),
        ("print(sum(map(int, input().split())))", PAIRS, 1.0, 1.0),
        ("print(3)", PAIRS, 0.0, 0.5),
        ("print('3 ')\nprint()", PAIRS, 0.0, 0.5),
        ("print(3); raise SystemExit(1)", PAIRS, 0.0, 0.0),
        ("def add(a, b): return a + b", json.dumps({"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"}), 1.0, 1.0),
        ("class Solution:\n    def add(self, a, b): return a + b", json.dumps({"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"}), 1.0, 1.0),
        # A result that stands alone in a list, as APPS has them, may be the list or what is in it.
        ("def add(a, b): return a + b", json.dumps({"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}), 1.0, 1.0),
        ("def add(a, b): return [a + b]", json.dumps({"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}), 1.0, 1.0),
        ("def add(a, b): return a", json.dumps({"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}), 0.0, 0.0),
        ("def add(a, b, c): return a", json.dumps({"inputs": ["abc"], "outputs": ["a"], "fn_name": "add"}), None, None),
        ("from collections import Counter\ndef count(x): return Counter(x)", '["assert count(\'aab\') == {\'a\': 2, \'b\': 1}"]', 1.0, 1.0),
        ("import numpy\ndef square(x): return numpy.array(x) ** 2", '["assert (square([1, 2]) == [1, 4]).all()", "assert not square(2) != 4"]', 1.0, 1.0),
        ("def f(a): return a, a + 1", json.dumps({"inputs": [[1]], "outputs": [[[1, 2]]], "fn_name": "f"}), 1.0, 1.0),
        ("def f(a): return a, a + 1", json.dumps({"inputs": [[1]], "outputs": [[1, 2]], "fn_name": "f"}), 1.0, 1.0),
        ("def f(a): return [(a, (a,))]", json.dumps({"inputs": [[1]], "outputs": [[[1, [1]]]], "fn_name": "f"}), 1.0, 1.0),
        ("def f(a): return {a: (a,)}", json.dumps({"inputs": [[1]], "outputs": [{"1": [1]}], "fn_name": "f"}), 1.0, 1.0),
        ("from collections import defaultdict\ndef f(a):\n    d = defaultdict(list)\n    d[a].append(a)\n    return d", json.dumps({"inputs": [[1]], "outputs": [{"1": [1]}], "fn_name": "f"}), 1.0, 1.0),
        ("from collections import namedtuple\nP = namedtuple('P', 'x')\ndef f(a): return P(a)", json.dumps({"inputs": [[1]], "outputs": [[[1]]], "fn_name": "f"}), 1.0, 1.0),
        ("def f(a): return a, a", json.dumps({"inputs": [[1]], "outputs": [[[1, 2]]], "fn_name": "f"}), 0.0, 0.0),
        ("def f(a): return {a: 1, '1': 2}", json.dumps({"inputs": [[1]], "outputs": [{"1": 2}], "fn_name": "f"}), 0.0, 0.0),
        ("def f(a): return a, a", '["assert f(1) == [1, 1]"]', 0.0, 0.0),
        ("from fractions import Fraction\ndef f(a): return [Fraction(a)]", '["assert f(1) == [1]"]', 1.0, 1.0),
        ("import numpy\ndef f(a): return [numpy.int64(a)]", '["assert f(1) == [1]"]', 1.0, 1.0),
        ("from collections import defaultdict\ndef f(a): return {'x': defaultdict(int, {a: 1})}", '["assert f(1) == {\'x\': {1: 1}}"]', 1.0, 1.0),
        ("from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(a): return P(a).x", '["assert f(1) == 1"]', 1.0, 1.0),
        ("x = 3", "not a test", None, None),
        ("x = 3", "[]", None, None),
        ("x = 3", json.dumps({"inputs": ["1"], "outputs": []}), None, None),
    ],
)  # fmt: skip
def test_programs_against_tests(program, tests, all_or_nothing, partial):
    whole, share = resolve_rewards(["code", "code:partial"], timeout=20.0)
    assert whole(completions=[fenced(program)], tests=[tests]) == [all_or_nothing]
    (value,) = share(completions=[fenced(program)], tests=[tests])
    assert value == (None if partial is None else pytest.approx(partial))


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "class Any:\n    def __eq__(self, other): return True\ndef square(x): return Any()",
        "class Any:\n    def __eq__(self, other): return True\ndef square(x): return [Any()]",
        "class Int(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef square(x): return Int(0)",
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.all = lambda *a: True\ndef square(x): return None",
        "import builtins\nbuiltins.bool = lambda *a: True\nbuiltins.hasattr = lambda *a: False\ndef square(x): return 1",
        "def square(x):\n    raise SystemExit(0)",
        "print('passed'); print('0 0'); print('ok')",
        "import json, ast\nast.parse = lambda *a: None\njson.load = None",
        "import os\nfor k in range(3): os.write(1, b'token %d\\n' % k)",
    ],
)
def test_programs_that_feign_success_fail(program):
    (reward,) = resolve_rewards(["code"], timeout=20.0)
    assert reward(completions=[fenced(program)], tests=[ASSERTS]) == [0.0]


@pytest.mark.parametrize(
    "test",
    [
        "assert f() == 1",
        "assert f() == 1 and f() == 2",
        "assert all(f() == k for k in range(3))",
        "assert not f() != 1",
    ],
)
@pytest.mark.parametrize("module", ["solution", "collections"])
def test_an_object_that_claims_to_equal_everything_equals_nothing(test, module):
    program = f"class Any:\n    __module__ = {module!r}\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
    (reward,) = resolve_rewards(["code"], timeout=20.0)
    assert reward(completions=[fenced(program + "def f(): return Any()")], tests=[[test]]) == [0.0]


ANY = "class Any:\n    def __eq__(self, other): return True\n    __hash__ = None\n"


@pytest.mark.parametrize(
    "program",
    [
        ANY + "def f(a): return [Any()]",
        ANY + "def f(a): return (Any(),)",
        ANY + "class List(list):\n    __eq__ = Any.__eq__\ndef f(a): return [List()]",
        ANY + "class Tuple(tuple):\n    __eq__ = Any.__eq__\ndef f(a): return Tuple()",
        ANY + "from collections import deque\ndef f(a): return [deque([Any()])]",
        ANY + "from fractions import Fraction\nx = Fraction()\nx._numerator = Any()\ndef f(a): return [x]",
        "from fractions import Fraction\nFraction.__eq__ = lambda *a: True\ndef f(a): return [Fraction()]",
        "import fractions\nclass Any:\n    __module__ = 'fractions'\n    def __eq__(self, other): return True\n"
        "fractions.Any = Any\ndef f(a): return [Any()]",
        "from unittest.mock import ANY\ndef f(a): return [ANY]",
        "from unittest.mock import ANY\ndef f(a): return ANY",
        ANY
        + "import __main__ as m\nm._plain = m._known = lambda v: True\nm._json = lambda v: v\ndef f(a): return [Any()]",
        ANY + "import weakref\nx = Any()\ndef f(a): return weakref.proxy(x)",
        "class Meta(type):\n    def __eq__(self, other): return True\n    def __hash__(self): return hash(int)\n"
        "class Any(metaclass=Meta):\n    def __eq__(self, other): return True\ndef f(a): return [Any()]",
    ],
)
@pytest.mark.parametrize(
    "tests", [["assert f(1) == [1]"], {"inputs": [[1]], "outputs": [[1]], "fn_name": "f"}], ids=["assert", "fn_name"]
)
def test_what_stands_in_a_container_cannot_claim_to_be_equal(program, tests):
    (reward,) = resolve_rewards(["code"], timeout=20.0)
    assert reward(completions=[fenced(program)], tests=[tests]) == [0.0]


def test_a_program_that_runs_forever_is_wrong_and_counted():
    from dopr.tasks.code_verifier import code

    reward = code(timeout=5.0, limits=TIGHT)
    assert reward(
        completions=[fenced("while True: pass"), fenced("def square(x): return x * x")], tests=[ASSERTS] * 2
    ) == [0.0, 1.0]
    assert reward.counts == {"scored": 2, "unscorable": 0, "errors": 0, "timeouts": 1}


def test_the_last_block_fenced_as_python_is_the_program():
    assert program_of("```python\na\n```\nno:\n```py\nb\n```") == "b\n"
    assert program_of("<think>```python\na\n```</think>\n```\nc\n```") == "c\n"
    assert program_of("```python\na\n```\nrun\n```bash\nb\n```\ndone") == "a\n"
    assert program_of("Input:\n```text\n3\n```\nso\n```python\na\n```") == "a\n"
    assert program_of("```python\na\n```\nwhich prints\n```\n4\n```") == "a\n"
    assert program_of("```cpp\na\n```") == "a\n"
    assert program_of("```" + "a" * 10**6) == "```" + "a" * 10**6  # in linear time
    assert program_of("x = 1") == "x = 1"
    assert program_of("1. So:\n   ```python\n   if a:\n       b\n   ```\n") == "if a:\n    b\n"
    assert program_of("```python\ncut off") == "cut off"


def test_tests_may_come_as_lists_and_objects():
    assert (
        read_tests(["assert f() == 1"])
        == read_tests('["assert f() == 1"]')
        == read_tests({"test_list": ["assert f() == 1"]})
    )
    assert read_tests([{"input": "1", "output": "2"}]) == read_tests({"inputs": ["1"], "outputs": ["2"]})
    assert read_tests("assert f() == 1\nassert f() == 2").asserts == ("assert f() == 1\nassert f() == 2",)


def test_tests_travel_to_the_trainer_as_text_and_reference_solutions_are_tried():
    tests = ["assert square(2) == 4"]
    good = Problem(id="g", prompt="Write square.", answer="def square(x): return x * x", extra={"tests": tests})
    bad = Problem(id="b", prompt="Write square!", answer="def square(x): return x", extra={"tests": tests})
    assert to_rows([good])[0]["tests"] == json.dumps(tests)
    (reward,) = resolve_rewards(["code"], timeout=20.0)
    assert [problem.id for problem, _ in check_golds([good, bad], reward)] == ["b"]
    preflight([reward], [good], timeout=20.0)


@pytest.mark.parametrize(
    "tests",
    [
        [b"assert f() == 1"],
        [{"input": b"1", "output": "2"}],
        {"inputs": [[date(2026, 1, 1)]], "outputs": [2], "fn_name": "f"},
        {("a", "b"): 1, "test_list": ["assert f() == 1"]},
        "[" * 100_000,
    ],
)
def test_tests_that_json_cannot_hold_cannot_be_read(tests):
    assert read_tests(tests) is None
    problem = Problem(id="a", prompt="Write f.", answer="def f(): return 1", extra={"tests": tests})
    assert to_rows([problem])[0].get("tests") == (tests if isinstance(tests, str) else None)
    with pytest.raises(DataError, match="cannot be read"):
        preflight(resolve_rewards(["code"], timeout=20.0), [problem], timeout=20.0)


def test_an_unknown_option_is_named():
    with pytest.raises(RewardError, match="code:some"):
        resolve_rewards(["code:some"], timeout=5.0)
