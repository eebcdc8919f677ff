"""Problems from reasoning-gym's generators, and their score.

A row carries its whole entry as JSON text (column ``gym_entry``), so it passes through a dataset and a worker process
unchanged. The splits of one generator come from seeds too far apart to share an item; since small tasks have few distinct
problems, the same question may still turn up in two of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dopr.errors import DataError, suggest

if TYPE_CHECKING:
    from dopr.tasks.problems import Problem

DEFAULT_SIZE = 500
#: reasoning-gym makes item i of seed s from seed s + i; each (seed, split) therefore owns a range of this many seeds.
MAX_SIZE = 1_000_000
_SPLITS = ("train", "test", "validation")
#: Seeds above wrap around: some generators hand theirs to NumPy, which takes 32 bits. 1000, where tuning begins, must not.
_SEEDS = 1400


def load_gym(task: str, *, split: str, size: int | None, seed: int) -> list[Problem]:
    """Problems of ``TASK`` or ``TASK?key=value,key=value``; exact repeats are left out, so there may be fewer than ``size``.

    The same task, split and seed give the same problems (a few of the generators iterate over sets, so that theirs
    differ between processes unless PYTHONHASHSEED is set).

    Raises:
        DataError: unknown task or split, options that the task does not take, or reasoning-gym is not installed.
    """
    from dopr.tasks.problems import Problem

    name, _, query = task.partition("?")
    options = _options(query, name)
    if split not in _SPLITS:
        raise DataError(f"gym:{name} has no split {split!r}. {suggest(split, _SPLITS)}")
    if size is not None and size > MAX_SIZE:
        raise DataError(f"{size} problems of gym:{name} are more than one seed gives ({MAX_SIZE}). Ask for fewer.")
    first = ((seed % _SEEDS) * len(_SPLITS) + _SPLITS.index(split)) * MAX_SIZE
    data = _dataset(name, json.dumps(options | {"seed": first, "size": size or DEFAULT_SIZE}))
    problems: dict[str, Problem] = {}
    for index in range(size or DEFAULT_SIZE):
        try:
            entry = data[index]
        except Exception as error:
            raise DataError(
                f"The generator gym:{task} fails at problem {index}: {error}. Change its options."
            ) from error
        extra = {"gym_entry": json.dumps({"task": name, "options": options, "entry": _tag(entry)}), "skill": name}
        answer = None if entry["answer"] is None else str(entry["answer"])
        ident = f"{name}/{split}/{seed}/{index}"
        problems.setdefault(entry["question"], Problem(id=ident, prompt=entry["question"], answer=answer, extra=extra))
    return list(problems.values())


def _options(query: str, name: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, query.split(",")):
        key, mark, value = part.partition("=")
        if not mark or not key:
            raise DataError(f"The option {part!r} of gym:{name} is not of the form key=value.")
        if key in {"seed", "size"}:
            raise DataError(f"The option {key!r} of gym:{name} is not given in the source; use --{key}.")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


@lru_cache(maxsize=32)
def _dataset(name: str, config: str) -> Any:
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise DataError("A gym: source needs reasoning-gym. Run: pip install 'dopr[gym]'.") from None
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=5, cutoff=0.4)
        raise DataError(
            f"There is no reasoning-gym task {name!r}"
            + (f"; close to it are {', '.join(close)}." if close else f"; there are {', '.join(sorted(DATASETS))}.")
        )
    known = [f.name for f in dataclasses.fields(DATASETS[name][1])]
    options = json.loads(config)
    for key in options:
        if key not in known:
            raise DataError(f"gym:{name} takes no option {key!r}. {suggest(key, set(known) - {'seed', 'size'})}")
    try:
        return create_dataset(name, **options)
    except Exception as error:  # assertions and type errors of the task's own validation
        raise DataError(f"gym:{name} does not accept these options: {error or type(error).__name__}.") from error


def _tag(value: Any) -> Any:
    """``value`` for JSON, with tuples and dictionaries of non-text keys marked: some tasks compare with tuples."""
    if isinstance(value, tuple):
        return {"__tuple__": [_tag(v) for v in value]}
    if isinstance(value, dict):
        if all(isinstance(k, str) for k in value):
            return {k: _tag(v) for k, v in value.items()}
        return {"__pairs__": [[_tag(k), _tag(v)] for k, v in value.items()]}
    if isinstance(value, list):
        return [_tag(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _untag(value: Any) -> Any:
    if isinstance(value, list):
        return [_untag(v) for v in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__tuple__"}:
        return tuple(_untag(value["__tuple__"]))
    if value.keys() == {"__pairs__"}:
        return {_untag(k): _untag(v) for k, v in value["__pairs__"]}
    return {k: _untag(v) for k, v in value.items()}


def score(packed: str, answers: list[str]) -> float:
    """Best score in [0, 1] that the task gives any of ``answers``, for the ``gym_entry`` text of a problem."""
    record = json.loads(packed)
    data, entry = _dataset(record["task"], json.dumps(record["options"])), _untag(record["entry"])
    return max(float(data.score_answer(answer, entry)) for answer in answers)
