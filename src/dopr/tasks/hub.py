"""Rows through the ``datasets`` library: saved to disk, or from the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dopr.errors import DataError, NoSplitError
from dopr.tasks.rows import Row, table_rows

#: How the library begins to say that a dataset was found but not the split.
_NO_SPLIT = ("Unknown split ", "Bad split: ")


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError("This source needs the datasets library. Run: pip install 'dopr[train]'.") from None
    return datasets


def read_saved(path: Path, *, split: str) -> list[Row]:
    """Rows of a ``Dataset`` or ``DatasetDict`` written by ``save_to_disk``.

    Raises:
        DataError: it is broken.
        NoSplitError: it has no such split.
    """
    datasets = _datasets()
    try:
        data = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{path} looks like a saved dataset but cannot be loaded: {_first_line(error)}.") from error
    if isinstance(data, datasets.DatasetDict):
        if split not in data:
            raise NoSplitError(f"{path} has no split {split!r}; it has {', '.join(sorted(map(str, data)))}.")
        data = data[split]
    return table_rows(data.with_format("arrow")[:], str(path))


def read_hub(source: str, *, split: str) -> list[Row]:
    """Rows of ``org/name`` or ``org/name:config`` on the hub, from the local cache where the hub cannot be reached.

    Raises:
        DataError: not such a name, not found, no such config, or offline.
        NoSplitError: no such split.
    """
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?::(.+))?", source)
    if match is None:
        raise DataError(
            f"The data source {source!r} is neither a path that exists nor a dataset name such as org/name or "
            "org/name:config."
        )
    try:
        data = _datasets().load_dataset(match[1], match[2], split=split)
    except DataError:
        raise
    except Exception as error:
        if str(error).startswith(_NO_SPLIT):
            raise NoSplitError(f"The dataset {source!r} has no split {split!r}: {_first_line(error)}.") from error
        raise DataError(
            f"There is no file {source!r}, and as a dataset on the Hugging Face hub (split {split!r}) it cannot be loaded: "
            f"{_first_line(error)}. Check the name, the split and the connection, or download it and give its path."
        ) from error
    rows = table_rows(data.with_format("arrow")[:], source)
    if not rows:
        raise DataError(f"The split {split!r} of the dataset {source!r} is empty.")
    return rows


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
