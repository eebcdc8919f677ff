"""The data columns that reward functions are given, with the values that they have in training, inside a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Names that the trainer passes to reward functions itself; a data column of such a name is not passed on.
RESERVED = frozenset(
    {"prompt", "prompts", "completion", "completions", "completion_ids", "answer", "id", "trainer_state", "log_extra"}
    | {"log_metric", "environment", "environments", "image", "images"}
)
#: Arrow's own limit is 64, with what a dataset puts around a value.
_MOST_LEVELS = 50


def passed_on(extras: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """The columns of ``extras`` that a dataset can hold, and for each that it cannot the reason.

    Whole numbers among decimal ones become decimal, objects get all keys of their column with None where they had none,
    and so on: what a dataset makes of them in training, evaluation and the trial before it find as well.
    """
    columns: dict[str, list[Any]] = {}
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(name for extra in extras for name in extra if name not in RESERVED):
        values = [extra.get(name) for extra in extras]
        kinds = {type(value) for value in values} - {type(None)}
        if len(kinds) <= 1 and kinds <= {str, int, float, bool}:
            columns[name] = [_safe(value) for value in values]
        elif kinds == {int, float}:
            columns[name] = [None if value is None else _decimal(value) for value in values]
        else:
            try:
                columns[name] = _through_arrow(values)
            except (
                ImportError,
                TypeError,
                ValueError,
                ArithmeticError,
                RuntimeError,
            ) as error:  # Arrow's derive from these
                left_out[name] = f"a dataset cannot hold it: {' '.join(str(error).split())[:120]}"
    return columns, left_out


def _safe(value: Any) -> Any:
    """Arrow holds integers of 64 bits and text in UTF-8; anything else becomes None or loses the broken characters."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _decimal(value: float) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _through_arrow(values: list[Any]) -> list[Any]:
    import pyarrow as pa

    array = pa.array(values)
    level = [array.type]
    for _ in range(_MOST_LEVELS):
        level = [kind.field(i).type for kind in level for i in range(kind.num_fields)]
    if level:
        raise ValueError(f"it is nested more than {_MOST_LEVELS} levels deep")
    return list(array.to_pylist())
