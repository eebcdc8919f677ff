"""Category and difficulty of the problems, from the columns where people usually keep them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.errors import ConfigError

CATEGORY_COLUMNS = ("category", "skill", "subject", "topic", "type", "data_source")
DIFFICULTY_COLUMNS = ("difficulty", "level")
_MOST_COLUMNS = 64  # of features
_NUMBER_IN_TEXT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def metadata_of(
    column: Callable[[str], Sequence[Any] | None], *, category: str | None = None, difficulty: str | None = None
) -> dict[str, list[Any]]:
    """Metadata for ``Selector.set_metadata``: the named columns, else the first usual one that every problem fills.

    Args:
        column: Values of a column, one per problem; ``None`` (or values that are ``None``) where there is none.
        category: Column of the categories.
        difficulty: Column of the difficulties: numbers, or text with one number in it such as ``Level 3``.

    Raises:
        ConfigError: A named column is missing or has gaps.
    """
    found: dict[str, list[Any]] = {}
    for kind, named, usual in (
        ("category", category, CATEGORY_COLUMNS),
        ("difficulty", difficulty, DIFFICULTY_COLUMNS),
    ):
        for name in (named,) if named else usual:
            values = column(name)
            whole = values is not None and len(values) > 0 and all(value is not None for value in values)
            if values is not None and whole:
                found[kind] = [_number(value) for value in values] if kind == "difficulty" else list(values)
                break
            if named:
                raise ConfigError(
                    f"The {kind} column {named!r} is missing or has empty values; fill it for every problem."
                )
    return found


def category_features(categories: Sequence[Any]) -> NDArray[np.float32]:
    """Features that say of a prompt nothing but its category: equal rows for one category, distant ones for two.

    Args:
        categories: One value per prompt.

    Returns:
        One-hot rows, shape (prompts, categories); beyond 64 categories random rows of 64 columns.
    """
    _, codes = np.unique([str(category) for category in categories], return_inverse=True)
    k = int(codes.max(initial=-1)) + 1
    table = np.eye(k) if k <= _MOST_COLUMNS else np.random.default_rng(0).standard_normal((k, _MOST_COLUMNS))
    return np.asarray(table, np.float32)[codes]


def _number(value: Any) -> Any:
    """The one number in a text such as ``Level 3``; anything else as it is, for the strategy to judge."""
    numbers = _NUMBER_IN_TEXT.findall(value) if isinstance(value, str) else []
    return float(numbers[0]) if len(numbers) == 1 else value
