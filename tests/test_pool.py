from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dopr.errors import RewardError
from dopr.tasks.pool import Failure, WorkerPool
from dopr.tasks.rewards import resolve_rewards

TESTS = str(Path(__file__).parent)

CASES = [
    ("thus \\boxed{\\frac{1}{2}}", "0.5"),
    ("thus \\boxed{\\frac{1}{3}}", "0.5"),
    ("The final answer is $x^2+2x+1$.", "(x+1)^2"),
    ("$\\boxed{(1, \\infty)}$", "(1,\\infty)"),
    ("\\boxed{\\text{Evelyn}}", "\\text{Evelyn}"),
    ("\\boxed{Evelyn}", "Mary"),
    ("no answer at all", "7"),
    ("", "7"),
    ("12", "12"),
    ("\\boxed{\\$36}", "\\$36"),
    ("\\boxed{x = 5}", "5"),
    ("\\boxed{5}", "x = 5"),
    ("\\boxed{\\{1,2\\}}", "\\{2,1\\}"),
    ("\\boxed{50\\%}", "0.5"),
    ("\\boxed{" * 500, "3"),
]


def answer(item):
    """A judge of this file's own, run in the workers by its name."""
    if item == "raise":
        raise ValueError("no")
    if item == "spin":
        while True:
            pass
    if item == "power":  # one C call that holds the interpreter's lock
        return len(str(9 ** (9**9)))
    if item == "sleep":
        time.sleep(60)
    if item == "die":
        os._exit(1)
    if item == "alarm":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if item == "print":
        print("noise on the standard output")  # noqa: T201
    return [item, os.getpid()]


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.syspath_prepend(TESTS)
    pool = WorkerPool("test_pool:answer", timeout=1.0, workers=2)
    yield pool
    pool.close()


def gone(pid: int) -> bool:
    for _ in range(1000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if sys.platform == "linux" and "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return True  # it has ended; only its parent, gone too, has not asked for it
        time.sleep(0.02)
    return False


def test_answers_keep_their_order_and_come_from_both_workers(pool):
    answers = pool.run(list(range(200)))
    assert [value for value, _ in answers] == list(range(200))
    assert {pid for _, pid in answers} == set(pool.pids())
    assert len(pool.pids()) == 2
    assert os.getpid() not in pool.pids()


def test_nothing_starts_before_the_first_item(pool):
    assert pool.pids() == []
    assert pool.run([]) == []
    assert pool.pids() == []


@pytest.mark.parametrize("hang", ["spin", "power", "sleep"])
def test_a_hanging_item_is_cut_off_and_the_others_are_answered(pool, hang):
    answers = pool.run([1, hang, 2, 3])
    assert answers[1] is Failure.TIMEOUT
    assert [a[0] for a in (answers[0], *answers[2:])] == [1, 2, 3]
    assert pool.run([4])[0][0] == 4


def test_errors_and_deaths_cost_only_their_item(pool):
    answers = pool.run(["raise", "die", "print", "alarm", 5])
    assert answers[:2] == [Failure.ERROR, Failure.ERROR]
    assert [a[0] for a in answers[2:]] == ["print", "alarm", 5]


def test_a_worker_killed_from_outside_is_replaced(pool):
    ((_, pid),) = pool.run([1])
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    ((value, other),) = pool.run([2])
    assert (value, other != pid) == (2, True)


def test_any_threads_may_share_a_pool(pool):
    results = {}

    def call(k):
        results[k] = [value for value, _ in pool.run([k * 100 + i for i in range(20)])]

    threads = [threading.Thread(target=call, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: [k * 100 + i for i in range(20)] for k in range(6)}


def test_a_forked_child_starts_workers_of_its_own(pool):
    ((_, before),) = pool.run([1])
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        ((value, pid),) = pool.run(["in child"])
        os.write(write, f"{value} {pid}".encode())
        pool.close()
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    value, _, pid = os.read(read, 100).decode().rpartition(" ")
    os.close(read)
    assert (value, int(pid) != before) == ("in child", True)
    assert pool.run([2]) == [[2, before]]


def test_a_judge_that_cannot_be_loaded_says_why():
    with pytest.raises(RewardError, match="No module named 'absent_judge'"):
        WorkerPool("absent_judge:f", timeout=1.0).run([1])


SCRIPT = """
import os, threading, time
from dopr.tasks.pool import WorkerPool
print("script runs", flush=True)
pool = WorkerPool("test_pool:answer", timeout={timeout}, workers=2)
pool.run([1, 2])
print(*pool.pids(), flush=True)
threading.Thread(target=pool.run, args=({items},), daemon=True).start()
time.sleep(0.5)
{end}
"""


@pytest.mark.parametrize(
    ("items", "timeout", "end"),
    [
        ([3], 60.0, ""),
        ([3], 60.0, "os.kill(os.getpid(), 9)"),
        (["sleep", "spin"], 60.0, "os.kill(os.getpid(), 15)"),
        (["sleep", "spin"], 60.0, "os._exit(0)"),
        pytest.param(["power", "power"], 1.0, "os.kill(os.getpid(), 9)", marks=pytest.mark.slow),
    ],
)
def test_workers_end_with_their_parent_and_never_run_its_script(tmp_path, items, timeout, end):
    script = tmp_path / "script.py"  # it has no `if __name__ == "__main__"`, like many a training script
    script.write_text(textwrap.dedent(SCRIPT).format(items=items, timeout=timeout, end=end))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([TESTS, *(p for p in sys.path if p)])}
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    first, pids, *rest = run.stdout.split("\n")
    assert (first, rest) == ("script runs", [""]), run.stderr
    assert len(pids.split()) == 2
    assert all(gone(int(pid)) for pid in pids.split())


# -- math ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def math():
    (reward,) = resolve_rewards(["math"], timeout=4.0)
    return reward


def test_math_gives_what_math_verify_gives(math):
    from math_verify import parse, verify

    plain = [float(verify(parse(f"\\boxed{{{gold}}}"), parse(text))) for text, gold in CASES]
    assert math(completions=[text for text, _ in CASES], answer=[gold for _, gold in CASES]) == plain
    assert 4 < sum(plain) < len(plain) - 2


def test_math_works_off_the_main_thread(math):
    results = []
    thread = threading.Thread(target=lambda: results.extend(math(completions=["$x/2$"], answer=["0.5x"])))
    thread.start()
    thread.join()
    assert results == [1.0]


def test_math_leaves_an_outer_alarm_alone(math):
    signal.alarm(1000)
    try:
        math(completions=["\\boxed{x+1}"], answer=["1+x"])
    finally:
        left = signal.alarm(0)
    assert left > 900


def test_a_completion_that_takes_forever_is_wrong_and_counted():
    (reward,) = resolve_rewards(["math"], timeout=2.0)
    texts = ["\\boxed{\\int_0^1 e^{-x^3} \\sin(x^2) dx}", "\\boxed{x+1}", "\\boxed{\\sum_{n=1}^{10^7} \\frac{1}{n^2}}"]
    assert reward(completions=texts, answer=["5", "1+x", "5"]) == [0.0, 1.0, 0.0]
    assert reward.counts == {"scored": 3, "unscorable": 0, "errors": 0, "timeouts": 2}
