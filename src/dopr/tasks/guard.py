"""A user's reward function, kept from stopping or spoiling a run."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from numbers import Real
from typing import Any

from dopr.errors import RewardError

logger = logging.getLogger("dopr")

#: The names of the counters that every reward of dopr's has.
COUNTERS = ("scored", "unscorable", "errors", "timeouts")


class GuardedReward:
    """Calls ``function`` as TRL calls a reward function, and turns what goes wrong into ``None``: unscorable, not zero.

    An exception is counted and the completions are tried one by one, so that one bad completion costs only itself. A
    call that takes more than ``timeout`` seconds gives None for all. NaN and infinities are None too. Answers that show
    a mistake in the function (wrong length, texts) raise, or with ``lenient``, once a run depends on it, count as errors.

    The function runs in a daemon thread so that it can be given up; Python cannot end a thread, so a function that hangs
    keeps its thread, and one that hangs inside a C call that holds the interpreter's lock cannot be given up at all. A
    function that insists on the main thread (it uses signals, as math-verify does) is called there, without a limit.

    Attributes:
        lenient: whether malformed answers are counted as errors, their completions unscorable, instead of raised.
        last_failure: what went wrong the last time, in words; None = nothing yet.
        counts: completions ``scored`` and ``unscorable``; calls with ``errors`` and ``timeouts``.
        extract: the function's own ``extract`` (canonical answer of a completion, or None), where it has one.
    """

    def __init__(self, function: Callable[..., Any], *, timeout: float, name: str | None = None) -> None:
        self.function, self.timeout = function, timeout
        self.__name__ = name or _name(function)
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.extract: Callable[[str], str | None] | None = getattr(function, "extract", None)
        self.lenient = False
        self.last_failure: str | None = None
        self._in_main_thread = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._logged: set[str] = set()

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """Rewards of ``completions``, None where one cannot be scored.

        Raises:
            RewardError: the function returned something other than one number or None per completion.
        """
        deadline = time.monotonic() + self.timeout
        rewards: list[float | None]
        try:
            rewards = checked(self.attempt(completions, columns, deadline), len(completions), self.__name__)
        except TimeoutError:
            rewards = self._timed_out(len(completions))
        except RewardError as error:
            if not self.lenient:
                raise
            rewards = self._one_by_one(error, completions, columns, deadline)
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises
            rewards = self._one_by_one(error, completions, columns, deadline)
        unscorable = sum(r is None for r in rewards)
        self.counts["unscorable"] += unscorable
        self.counts["scored"] += len(rewards) - unscorable
        return rewards

    def attempt(self, completions: list[Any], columns: dict[str, Any], deadline: float) -> Any:
        """What one call returns, its own exceptions let through; TimeoutError after ``deadline`` (of time.monotonic)."""
        logs: list[tuple[str, list[Any]]] = []
        given = columns.get("log_extra")
        if given is not None:  # held back, so that a call that fails half-way leaves no half-written column
            columns = columns | {"log_extra": lambda column, values: logs.append((column, values))}
        try:
            result = self._run({"completions": completions} | columns, deadline)
        except ValueError as error:
            if not _wants_main_thread(error) or self._in_main_thread:
                raise
            self._in_main_thread = True
            logs.clear()
            result = self._run({"completions": completions} | columns, deadline)
        if given is not None:
            for column, values in list(logs):
                given(column, values)
        return result

    def _run(self, arguments: dict[str, Any], deadline: float) -> Any:
        if self._in_main_thread:
            result = self.function(**arguments)
            return self._await(result, deadline) if inspect.isawaitable(result) else result
        answer: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        context = contextvars.copy_context()

        def call() -> None:
            try:
                answer.put((True, context.run(self.function, **arguments)))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                answer.put((False, error))

        threading.Thread(target=call, name=f"dopr-reward-{self.__name__}", daemon=True).start()
        try:
            worked, result = answer.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            raise TimeoutError from None
        if not worked:
            # SystemExit and the like end a thread, not the run; and the function's own TimeoutError is an error.
            if not isinstance(result, Exception) or isinstance(result, TimeoutError):
                raise RuntimeError(f"{type(result).__name__}: {result}") from result
            raise result
        return self._await(result, deadline) if inspect.isawaitable(result) else result

    def _await(self, awaitable: Any, deadline: float) -> Any:
        """Result of an async function, run on a loop that lasts, since clients are often bound to the loop they began on."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="dopr-reward-loop", daemon=True).start()

        async def finish() -> Any:
            return await awaitable

        coroutine: Coroutine[Any, Any, Any] = finish()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout=max(deadline - time.monotonic(), 0.0))
        except TimeoutError as error:
            if future.done():
                raise RuntimeError(f"TimeoutError: {error}") from error
            future.cancel()
            raise

    def _one_by_one(
        self, error: Exception, completions: list[Any], columns: dict[str, Any], deadline: float
    ) -> list[float | None]:
        self.counts["errors"] += 1
        malformed = isinstance(error, RewardError)
        self.last_failure = str(error) if malformed else f"raised {type(error).__name__}: {error}"
        self._log_once(type(error).__name__, self.last_failure, None if malformed else error)
        n = len(completions)
        rewards: list[float | None] = [None] * n
        if n == 1:
            return rewards
        logs: dict[str, list[Any]] = {}
        for i in range(n):
            row = self.row(columns, i, n)
            if callable(columns.get("log_extra")):
                row["log_extra"] = functools.partial(_log_at, logs, i, n)
            try:
                rewards[i] = checked(self.attempt([completions[i]], row, deadline), 1, self.__name__)[0]
            except TimeoutError:
                self._timed_out(0)
                break
            except Exception as failure:  # counted and logged once above; this completion stays None
                if isinstance(failure, RewardError) and not self.lenient:
                    raise
        for column, values in logs.items():
            columns["log_extra"](column, values)
        return rewards

    @staticmethod
    def row(columns: dict[str, Any], i: int, n: int) -> dict[str, Any]:
        """Columns of completion ``i`` of ``n`` alone; what is not one value per completion stays as it is."""
        return {k: [v[i]] if isinstance(v, list | tuple) and len(v) == n else v for k, v in columns.items()}

    def _timed_out(self, n: int) -> list[float | None]:
        self.counts["timeouts"] += 1
        self.last_failure = f"took more than {self.timeout:g} seconds"
        self._log_once("timeout", self.last_failure)
        return [None] * n

    def _log_once(self, kind: str, text: str, error: Exception | None = None) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            details = "" if error is None else "\n" + "".join(traceback.format_exception(error)).rstrip()
            logger.warning(
                "The reward function %s %s. What it could not score is left out, not counted as wrong. "
                "(Logged once for each kind of failure.)%s",
                self.__name__,
                _printable(text),
                _printable(details),
            )


def _printable(text: str) -> str:
    """Without control codes, which an exception that quotes the policy may hold and a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def checked(result: Any, n: int, name: str) -> list[float | None]:
    """``result`` as ``n`` rewards: floats, or None for None, NaN and infinities. NumPy and torch values are fine.

    Raises:
        RewardError: not a list of ``n``, or something in it is not a number.
    """
    if not isinstance(result, list | tuple) and hasattr(result, "tolist"):
        result = result.tolist()
    if not isinstance(result, list | tuple):
        raise RewardError(
            f"The reward function {name} returned {_shown(result)}; it must return a list with one number, or None, per "
            "completion."
        )
    if len(result) != n:
        raise RewardError(
            f"The reward function {name} returned {len(result)} rewards for {n} completions; it must return one for each."
        )
    return [_number(value, i, name) for i, value in enumerate(result)]


def _number(value: Any, index: int, name: str) -> float | None:
    if value is None:
        return None
    plain = value.item() if hasattr(value, "item") and getattr(value, "size", 1) != 0 else value
    if not isinstance(plain, Real):
        raise RewardError(
            f"The reward function {name} returned {_shown(value)} for completion {index}; it must be a number, or None "
            "where the completion cannot be scored."
        )
    try:
        reward = float(plain)
    except OverflowError:
        return None
    return reward if math.isfinite(reward) else None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]}{'...' if len(text) > 60 else ''} (of type {type(value).__name__})"


def _log_at(logs: dict[str, list[Any]], i: int, n: int, column: str, values: list[Any]) -> None:
    if values:
        logs.setdefault(column, [None] * n)[i] = values[0]


def _wants_main_thread(error: BaseException | None) -> bool:
    while error is not None:
        if "main thread" in str(error):  # the words of the standard library's signal module
            return True
        error = error.__cause__ or error.__context__
    return False


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
