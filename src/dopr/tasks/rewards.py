"""Rewards by name, and the checks that catch a wrong one before a model is loaded."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

from dopr.errors import DataError, RewardError, suggest
from dopr.selection.user_code import import_named
from dopr.tasks import code_verifier, math_verifier, shaping, verifiers
from dopr.tasks.answers import is_prose, parse_number
from dopr.tasks.guard import GuardedReward, checked
from dopr.tasks.passed_on import passed_on
from dopr.tasks.problems import Problem, columns_of, prompt_id, to_rows
from dopr.tasks.verifiers import Verifier

logger = logging.getLogger("dopr")

_NAMED: dict[str, Callable[[float], Verifier]] = {
    "math": lambda timeout: math_verifier.math(timeout=timeout),
    "number": lambda timeout: verifiers.number(),
    "exact": lambda timeout: verifiers.exact(),
    "world": lambda timeout: verifiers.world(),
    "choice": lambda timeout: verifiers.choice(),
    "gym": lambda timeout: verifiers.gym(timeout=timeout),
    "code": lambda timeout: code_verifier.code(timeout=timeout),
}
_WITH_OPTION: dict[str, Callable[[str, float], RewardFunction]] = {
    "math": lambda option, timeout: math_verifier.math(option, timeout=timeout),
    "code": lambda option, timeout: code_verifier.code(option, timeout=timeout),
    "format": lambda option, timeout: shaping.format_reward(option),
    "overlong": lambda option, timeout: shaping.overlong(option),
}
#: Verifiers that look for a value in the gold, so that prose around it would mislead them.
_READING = ("math", "number")
#: Problems that a function is tried on before the run.
_TRIED = 4
_NO_TESTS = "it has no column 'tests', which code is run against"
_UNREADABLE_TESTS = "its tests cannot be read: they must be asserts, or pairs of input and output"


class RewardFunction(Protocol):
    """What :func:`resolve_rewards` gives: TRL's reward function, with a name, counters and an extractor."""

    __name__: str
    #: ``scored``, ``unscorable``, ``errors``, ``timeouts`` since the start.
    counts: dict[str, int]

    @property
    def extract(self) -> Callable[[str], str | None] | None:
        """Canonical answer of a completion, for maj@n; None for a function that has none."""

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """Rewards, None where a completion cannot be scored."""


def resolve_rewards(specs: Sequence[str], *, timeout: float) -> list[RewardFunction]:
    """Reward functions for ``specs``: names of verifiers, ``regex:PATTERN``, or ``module:function`` of the user's.

    Args:
        specs: at least one.
        timeout: seconds; per completion for math, regex and gym, per call for a function of the user's.

    Raises:
        RewardError: an unknown name, an invalid pattern, or a function that cannot be imported.
    """
    if not specs:
        raise RewardError(f"No reward is given. {suggest('', _known())}")
    if not (math.isfinite(timeout) and timeout > 0):
        raise RewardError(f"The reward timeout is {timeout}; it must be a positive number of seconds.")
    return [_resolve(spec, timeout) for spec in specs]


def _resolve(spec: str, timeout: float) -> RewardFunction:
    if spec.startswith("regex:"):  # first: a pattern may hold anything
        return verifiers.by_regex(spec.removeprefix("regex:"), timeout=timeout)
    if "&" in spec:
        return shaping.Gate([_resolve(part.strip(), timeout) for part in spec.split("&")])
    if spec in _NAMED:
        return _NAMED[spec](timeout)
    name, _, option = spec.partition(":")
    if name in _WITH_OPTION:
        return _WITH_OPTION[name](option, timeout)
    if ":" not in spec:
        raise RewardError(f"There is no reward {spec!r}. {suggest(spec, _known())}")
    return GuardedReward(_import(spec), timeout=timeout)


def _known() -> list[str]:
    return [
        *_NAMED,
        "code:partial",
        "math:RULES",
        "format:FORM",
        "overlong:MAX,BUFFER",
        "regex:PATTERN",
        "module:function",
        "A&B",
    ]


def _import(spec: str) -> Callable[..., Any]:
    function = import_named(spec, noun="reward", kind="function", error=RewardError)
    if not callable(function) or isinstance(function, type):
        raise RewardError(f"The reward {spec!r} is a {type(function).__name__}, not a function.")
    return function


def needs_answer(specs: Sequence[str]) -> bool:
    """Whether one of the rewards reads the column ``answer``; a function of the user's is not known to."""

    def reads(spec: str) -> bool:
        if spec.startswith("regex:"):
            return True
        if "&" in spec:
            return any(map(reads, spec.split("&")))
        name = spec.strip().partition(":")[0]
        return name in (*_NAMED, "math", "auto") and name not in ("code", "gym")

    return any(map(reads, specs))


def auto_reward(problems: Sequence[Problem]) -> str:
    """Name of the verifier that suits the golds: code where all problems have tests, number where all are, choice where all are letters A-E, else math.

    Raises:
        RewardError: a problem has no answer.
    """
    if problems and all(p.extra.get("tests") for p in problems):
        return "code"
    golds = [p.answer for p in problems]
    if not golds or None in golds:
        raise RewardError("The problems have no answers to choose a verifier by. Name a reward function.")
    if all(parse_number(g) is not None for g in golds if g is not None):
        return "number"
    if all(re.fullmatch(r"\(?[A-E]\)?", g) for g in golds if g is not None):
        return "choice"
    return "math"


def reads_golds(reward: RewardFunction) -> bool:
    """Whether the form is known in which the reward wants a gold: not of a regex, nor of a function of the user's."""
    if isinstance(reward, shaping.Gate):
        return any(map(reads_golds, reward.rewards))
    return isinstance(reward, Verifier) and reward.example is not None


def check_golds(problems: Sequence[Problem], reward: RewardFunction) -> list[tuple[Problem, str]]:
    """Problems whose own gold, in the form that the named verifier wants, it rejects or could only misread, or that lack
    what it reads; and why. Counters stay as they are.

    What does not :func:`reads_golds` is not checked.
    """
    if isinstance(reward, shaping.Gate):
        return [bad for part in reward.rewards for bad in check_golds(problems, part)]
    if not isinstance(reward, Verifier) or reward.example is None:
        return []
    kept = dict(reward.counts)
    bad = [(p, why) for p in problems if (why := _fault(p, reward))]
    faulty = {id(p) for p, _ in bad}
    asked = [p for p in problems if p.answer is not None and id(p) not in faulty]
    golds = [str(p.answer) for p in asked]
    column = golds if reward.column == "answer" else [p.extra.get(reward.column) for p in asked]
    for problem, gold, value in zip(
        asked, golds, reward([reward.example(g) for g in golds], **{reward.column: column}), strict=True
    ):
        if value is None:
            bad.append((problem, f"the gold {gold!r} cannot be read"))
        elif value < 1.0:
            bad.append((problem, f"the gold {gold!r}, given as the completion, gets {value:g}"))
    reward.counts.update(kept)
    return bad


def _fault(problem: Problem, reward: Verifier) -> str | None:
    """What the verifier would miss in the problem, or misread."""
    if reward.column == "answer" and problem.answer is None:
        return "it has no answer"
    if reward.__name__ in _READING and problem.answer is not None and is_prose(problem.answer):
        return _as_prose(problem.answer)
    if reward.column == "tests":
        tests = problem.extra.get("tests")
        if tests is None or tests == "":
            return _NO_TESTS
        if code_verifier.read_tests(tests) is None:
            return _UNREADABLE_TESTS
    return None


def _as_prose(gold: str) -> str:
    shown = gold if len(gold) <= 60 else f"{gold[:30]} ... {gold[-25:]}"
    return f"the gold {shown!r} is a sentence or a worked solution; give the answer alone, in \\boxed{{}}, or after #### on the last line"


def preflight(
    rewards: Sequence[RewardFunction], problems: Sequence[Problem], *, timeout: float, chat: bool = False
) -> None:
    """Try every reward on gold answers before anything expensive is loaded.

    Args:
        rewards: as :func:`resolve_rewards` gives them.
        problems: what the run will train on; named verifiers check all, functions are tried on the first four.
        timeout: seconds that a function may take for those four.
        chat: whether completions will come as messages.

    Raises:
        RewardError: a function fails on every call, hangs, or returns something other than numbers.
        DataError: a named verifier rejects golds; up to five are named.
    """
    for reward in rewards:
        if isinstance(reward, GuardedReward):
            _try(reward, problems, timeout, chat)
            continue
        bad = check_golds(problems, reward)
        if bad:
            named = "; ".join(f"{_name(problem)}: {why}" for problem, why in bad[:5])
            untested = any(why in (_NO_TESTS, _UNREADABLE_TESTS) for _, why in bad)
            what = (
                f"no tests that their verifier, {reward.__name__!r}, can run"
                if untested
                else f"a gold answer that their own verifier, {reward.__name__!r}, rejects"
            )
            raise DataError(
                f"{len(bad)} of {len(problems)} problems have {what}: {named}{'; ...' if len(bad) > 5 else ''}. No completion "
                "could be right. Correct or leave out these problems, or choose another reward."
            )


def _name(problem: Problem) -> str:
    """The problem's id, and its first words where that is a hash that no file shows."""
    if problem.id != prompt_id(problem.prompt):
        return repr(problem.id)
    text = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]
    return f"{problem.id!r} ({text[:40]!r}{'...' if len(text) > 40 else ''})"


def _try(reward: GuardedReward, problems: Sequence[Problem], timeout: float, chat: bool) -> None:
    """Call the function for the first few of ``problems``, with the columns that all of them allow."""
    _, left_out = passed_on(columns_of(problems))
    missing = ", ".join(f"{name!r} ({why})" for name, why in left_out.items())
    rows = to_rows(problems, chat=any(not isinstance(p.prompt, str) for p in problems))[:_TRIED]
    problems = problems[:_TRIED]
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    texts = ["" if p.answer is None else p.answer for p in problems]
    completions: list[Any] = [[{"role": "assistant", "content": t}] for t in texts] if chat else texts
    rest: dict[str, Any] = {"prompts": columns.pop("prompt", []), "completion_ids": [[0] for _ in rows]} | columns
    rest |= {
        "trainer_state": SimpleNamespace(global_step=0, max_steps=1, epoch=0.0, num_train_epochs=1, log_history=[]),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
    }
    try:
        raw = _call(reward, completions, rest, time.monotonic() + timeout, missing)
    except TimeoutError:
        raise RewardError(
            f"The reward function {reward.__name__} took more than {timeout:g} seconds for {len(problems)} completions. "
            "Make it faster, or raise the reward timeout."
        ) from None
    rewards = checked(raw, len(completions), reward.__name__)
    if rewards and all(r is None for r in rewards) and all(r is not None for r in raw):
        raise RewardError(
            f"The reward function {reward.__name__} returned NaN or infinity for all of {len(rewards)} gold answers. "
            "Return a finite number, or None where a completion cannot be scored."
        )
    if missing:
        logger.warning("The reward function %s is not given all columns: %s.", reward.__name__, missing)


def _call(reward: GuardedReward, completions: list[Any], columns: dict[str, Any], deadline: float, missing: str) -> Any:
    """What the function returns for all completions or, where that raises, for the first one that it can do alone."""
    try:
        return reward.attempt(completions, columns, deadline)
    except (TimeoutError, RewardError):
        raise
    except Exception as error:  # noqa: BLE001 - raised below, unless it is the fault of some completions only
        first = error
    for i in range(len(completions)):
        try:
            result = reward.attempt([completions[i]], reward.row(columns, i, len(completions)), deadline)
        except (TimeoutError, RewardError):
            raise
        except Exception:  # noqa: BLE001 - the first one stands for all
            continue
        return [*checked(result, 1, reward.__name__), *[0.0] * (len(completions) - 1)]
    raise RewardError(
        f"The reward function {reward.__name__} raises on every call: {type(first).__name__}: {first}. It is called "
        "with completions, prompts and the data columns as keyword arguments, each a list; end its parameters with "
        f"**kwargs.{f' Not given: {missing}.' if missing else ''}"
    ) from first
