"""A pool of worker processes that judge one item each within a hard time limit.

Symbolic mathematics on a policy's output may take forever, and inside one big-integer operation nothing in the same
process can stop it. So each item is judged in a worker, and the parent kills a worker that is late and starts another.

The workers are plain subprocesses, not ``multiprocessing`` ones: those would run the user's script again where it has no
``if __name__ == "__main__"``, and cannot be started from a daemonic process such as a Ray worker. A worker's main thread
is free, so code that uses SIGALRM works there. A worker ends at once when its standard input closes, hence with its
parent however that ends; where a C call does not let it see that, the kernel ends it by its processor time.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import os
import queue
import subprocess
import sys
import threading
import weakref
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, cast

from dopr.errors import RewardError

#: Seconds that a worker may take to start and to import what it judges with.
START_SECONDS = 120.0
_MEMORY_BYTES = 4 << 30
_MESSAGE = 8  # items sent to a worker at once; each still has its own time limit


class Failure(Enum):
    """Why an item has no answer."""

    TIMEOUT = "timeout"
    ERROR = "error"


class _LateError(Exception):
    """The worker took too long and was killed."""


class _DiedError(Exception):
    """The worker died before its time was up: killed from outside, out of memory, or a crash of its own."""


class _Worker:
    def __init__(self, judge: str, limit: float) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",  # the same verdict in every worker, whatever iterates over a set
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from dopr.tasks.pool import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal reaches the parent alone
        )
        self._to = cast(io.BufferedWriter, self._process.stdin)
        self._from = cast(io.BufferedReader, self._process.stdout)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            ((started, reason),) = self.ask([[judge, limit]], START_SECONDS)
        except (_LateError, _DiedError):
            raise RewardError(f"The worker process of the verifier {judge} did not start.") from None
        if not started:
            self.kill()
            raise RewardError(f"The verifier {judge} cannot be loaded in its worker process: {reason}.")

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, messages: Sequence[object], limit: float) -> Iterator[list[Any]]:
        """Send messages; ``[worked, value]`` of each in turn, waiting at most ``limit`` seconds for each."""
        try:
            self._to.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
            self._to.flush()
        except (OSError, ValueError):  # the pipe of a dead or closed worker
            self.kill()
            raise _DiedError from None
        for _ in messages:
            try:
                line = self._lines.get(timeout=limit)
            except queue.Empty:
                self.kill()
                raise _LateError from None
            if not line.endswith(b"\n"):
                self.kill()
                raise _DiedError
            yield cast(list[Any], json.loads(line))

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._from:
                self._lines.put(line)
        self._lines.put(b"")  # it has ended

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Close this process's ends of the pipes without flushing; in a forked child the parent keeps its own."""
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.raw.close()


class _Todo:
    """Indices still to be judged: some preferred by each slot, taken by others when their own are done."""

    def __init__(self, slots: int, preferences: Sequence[int]) -> None:
        self._lock = threading.Lock()
        self._queues: list[deque[int]] = [deque() for _ in range(slots)]
        for index, preference in enumerate(preferences):
            self._queues[preference % slots].append(index)

    def take(self, slot: int) -> list[int]:
        """A few indices, fewer towards the end, so that no worker sits idle behind a slow one."""
        with self._lock:
            own = self._queues[slot]
            if own:
                return [own.popleft() for _ in range(max(1, min(_MESSAGE, len(own) // 2)))]
            longest = max(self._queues, key=len)
            return [longest.pop()] if longest else []

    def give_back(self, slot: int, indices: list[int]) -> None:
        with self._lock:
            self._queues[slot].extendleft(reversed(indices))

    def clear(self) -> None:
        with self._lock:
            for waiting in self._queues:
                waiting.clear()


class WorkerPool:
    """Judges items by a function that is named, as ``module:function``, and imported in the workers.

    The function takes one JSON value and gives one. Nothing is started before the first item. Any thread may call; one
    batch runs at a time. A forked child of the process starts workers of its own.

    Args:
        judge: the function, as ``module:function``.
        timeout: seconds that one item may take.
        workers: processes; by default one per processor, at most 4.
    """

    def __init__(self, judge: str, *, timeout: float, workers: int | None = None) -> None:
        self.judge, self.timeout = judge, timeout
        self._workers: list[_Worker | None] = [None] * (workers or min(4, os.cpu_count() or 1))
        self._lock = threading.Lock()
        _live.add(self)

    def run(self, items: Sequence[object], keys: Sequence[str] | None = None) -> list[Any]:
        """Answers in the order of ``items``; a :class:`Failure` where the function raised or took too long.

        Args:
            items: JSON values.
            keys: one per item; items of one key go to one worker while there is work for all, so that what it keeps
                from one serves the next.

        Raises:
            RewardError: the workers cannot be started.
        """
        answers: list[Any] = [None] * len(items)
        slots = min(len(self._workers), len(items))
        todo = _Todo(slots, [zlib.crc32(key.encode("utf-8", "replace")) for key in keys] if keys else range(len(items)))
        errors: list[RewardError] = []

        def drain(slot: int) -> None:
            while not errors and (indices := todo.take(slot)):
                try:
                    todo.give_back(slot, self._judge(slot, indices, items, answers))
                except RewardError as error:
                    errors.append(error)

        with self._lock:
            threads = [threading.Thread(target=drain, args=(slot,), daemon=True) for slot in range(1, slots)]
            try:
                for thread in threads:
                    thread.start()
                if slots:
                    drain(0)
                for thread in threads:
                    thread.join()
            except BaseException:  # Ctrl-C: leave no thread behind that still talks to a worker
                todo.clear()
                self._kill_all()
                raise
        if errors:
            raise errors[0]
        return answers

    def _judge(self, slot: int, indices: list[int], items: Sequence[object], answers: list[Any]) -> list[int]:
        """Judge a few items; the indices of those that are left because one before them cost the worker its life."""
        died_on = None
        while indices:
            worker = self._workers[slot]
            if worker is None or not worker.alive():
                worker = self._workers[slot] = _Worker(self.judge, self.timeout)
            done = 0
            try:
                for worked, value in worker.ask([items[i] for i in indices], self.timeout):
                    answers[indices[done]] = value if worked else Failure.ERROR
                    done += 1
                return []
            except _LateError:
                answers[indices[done]] = Failure.TIMEOUT
                return indices[done + 1 :]
            except _DiedError:
                indices = indices[done:]
                if died_on == indices[0]:  # twice on the same item: the item's own fault
                    answers[indices[0]] = Failure.ERROR
                    return indices[1:]
                died_on = indices[0]
        return []

    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [w._process.pid for w in self._workers if w is not None and w.alive()]

    def close(self) -> None:
        """End the workers; the next batch starts new ones."""
        with self._lock:
            self._kill_all()

    def _kill_all(self) -> None:
        for slot, worker in enumerate(self._workers):
            if worker is not None:
                worker.kill()
            self._workers[slot] = None

    def _after_fork(self) -> None:
        for worker in self._workers:
            if worker is not None:
                worker.forget()
        self._workers = [None] * len(self._workers)
        self._lock = threading.Lock()


_live: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _close_all() -> None:
    for pool in list(_live):
        pool._kill_all()


def _forget_all() -> None:
    for pool in list(_live):
        pool._after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def serve() -> None:
    """What a worker process runs: one JSON line in, one out, until the input closes."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the verifier prints must not mix with the answers
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # Read aside, so that the end of the parent is seen while an item is being judged, too.
    threading.Thread(target=_read, args=(lines,), daemon=True).start()

    def reply(worked: bool, value: object) -> None:
        answers.write(json.dumps([worked, value]).encode() + b"\n")

    judge, limit = json.loads(lines.get())
    module, _, name = judge.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        function(None)  # imports what it needs
    except Exception as error:  # noqa: BLE001 - handed to the parent, which raises it
        reply(False, str(error) or type(error).__name__)
        return
    _limit_memory()
    reply(True, None)
    while True:
        line = lines.get()
        _limit_processor(limit + 5.0)
        try:
            value = function(json.loads(line))
        except Exception as error:  # noqa: BLE001 - counted by the parent as an error of this item
            reply(False, type(error).__name__)
        else:
            reply(True, value)
        _limit_processor(0.0)


def _read(lines: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not POSIX, or a lower limit is already set
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def _limit_processor(seconds: float) -> None:
    """Ends the process by SIGPROF's default action, which needs no Python, hence works inside a long C call too."""
    import signal

    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
