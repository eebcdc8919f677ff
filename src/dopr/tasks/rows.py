"""Rows from files: every reader gives the rows with the place they came from, or a DataError that names it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dopr.errors import DataError, NoSplitError

#: Arrow's names of the floats that are shorter than Python's, and NumPy's.
_SHORT_FLOATS = {"halffloat": "float16", "float": "float32"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was read."""

    #: Where it stands, for messages: "line 3", "row 3", both counted from 1.
    where: str
    data: dict[str, Any]


def is_data_path(source: str) -> bool:
    """Whether ``source`` means a path rather than a dataset on the hub: it exists, or looks like a path."""
    if not source.strip() or "\0" in source:
        raise DataError(f"The data source is {source!r}; give a file, a directory, org/name, gym:TASK or world:NAME.")
    path = Path(source).expanduser()
    return source.startswith((".", "/", "~")) or source.count("/") != 1 or path.exists() or _suffix(path) in READERS


def read_path(path: Path, *, split: str) -> list[Row]:
    """Rows of a file, by its extension, or of a directory.

    Raises:
        DataError: missing, of an unknown kind, unreadable or empty.
        NoSplitError: the directory has splits, but not this one.
    """
    try:
        if path.is_dir():
            rows = _read_directory(path, split)
        elif not path.exists():
            raise DataError(
                f"There is no file or directory {str(path)!r}. Give the path of a {_known()} file or of a directory, a "
                "dataset on the hub as org/name, gym:TASK or world:NAME."
            )
        else:
            rows = _read_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not rows:
        raise DataError(f"{path} holds no problems: it is empty. Give at least one row.")
    return rows


def _read_file(path: Path) -> list[Row]:
    reader = READERS.get(_suffix(path))
    if reader is None:
        kind = f"the extension {path.suffix!r}" if path.suffix else "no extension"
        raise DataError(f"{path} has {kind}; it must be one of {_known()}. Convert or rename it.")
    return reader(path)


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _known() -> str:
    return ", ".join(READERS)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: it is not UTF-8 text. Save the file as UTF-8.") from None


def _read_jsonl(path: Path) -> list[Row]:
    # Split at "\n" alone: str.splitlines would also split at characters that JSON allows inside a text.
    text = _text(path)
    if text.lstrip().startswith("[") and _is_array_of_objects(text):
        raise DataError(
            f"{path} holds one JSON array, where every line must hold an object of its own. Rename it to "
            f"{path.with_suffix('.json').name}, which may hold an array."
        )
    lines = text.split("\n")
    return [_json_row(line, f"line {k}", path) for k, line in enumerate(lines, 1) if line.strip()]


def _is_array_of_objects(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _json_row(line: str, where: str, path: Path) -> Row:
    value = _decode(line, f"{path}, {where}")
    if isinstance(value, dict):
        return Row(where, value)
    raise DataError(
        f"{path}, {where}: it holds {_kind(value)} where an object with a prompt and an answer must stand, such as "
        '{"question": "...", "answer": "..."}.'
    )


def _decode(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.lineno > 1:  # a whole file: its own line count
            where = f"{where}, line {error.lineno}"
        found = text[max(error.pos - 20, 0) : error.pos + 20].strip()
        raise DataError(f"{where}: it is not valid JSON: {error.msg} near {found!r}. Correct it.") from None
    except (ValueError, RecursionError) as error:  # an integer of too many digits, or brackets nested too deep
        raise DataError(f"{where}: its JSON cannot be read: {error}.") from None


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def _read_json(path: Path) -> list[Row]:
    text = _text(path)
    if not text.strip():
        return []
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith("{") and line.rstrip().endswith("}") for line in lines):
        return _read_jsonl(path)  # JSON lines under the name .json, as the hub's own files often are
    value = _decode(text, str(path))
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), list):
        value = next(iter(value.values()))
    if not isinstance(value, list):
        raise DataError(
            f"{path} holds {'an object' if isinstance(value, dict) else _kind(value)}; it must be a list of objects, or "
            'an object with one key that holds such a list, like {"data": [...]}.'
        )
    for k, entry in enumerate(value, 1):
        if not isinstance(entry, dict):
            raise DataError(f"{path}, row {k}: it is {_kind(entry)}; every row must be an object.")
    return [Row(f"row {k}", entry) for k, entry in enumerate(value, 1)]


def _read_csv(path: Path) -> list[Row]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        names = reader.fieldnames
        if not names:
            return []
        if len(set(names)) < len(names):
            raise DataError(
                f"{path}, line 1: two columns have the same name ({', '.join(map(repr, names))}). Rename one."
            )
        if len(names) == 1 and (other := next((mark for mark in ";\t" if mark in names[0]), None)):
            raise DataError(
                f"{path}, line 1: its only column is {names[0]!r}, so {'semicolons' if other == ';' else 'tabs'} seem to stand "
                "between the cells. The separator must be a comma: save it so."
            )
        rows = []
        for data in reader:
            where = f"line {reader.line_num}"
            if None in data:
                raise DataError(
                    f"{path}, {where}: it has more cells than the header has columns ({len(names)}). Put texts that "
                    "contain a comma between double quotes."
                )
            rows.append(Row(where, data))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num + 1}: it is not valid CSV: {error}. Correct it.") from None
    return rows


def _read_parquet(path: Path) -> list[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{path} needs pyarrow to be read. Run: pip install 'dopr[train]'.") from None
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise DataError(f"{path}: two columns have the same name ({', '.join(map(repr, names))}). Rename one.")
            table = file.read()
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a parquet file that can be read: {error}.") from None
    return table_rows(table, str(path))


def table_rows(table: Any, source: str) -> list[Row]:
    """Rows of an Arrow table.

    Raises:
        DataError: a column holds values that Python has no form for.
    """
    import pyarrow as pa

    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            columns.append(_shortest(column.to_pylist(), str(column.type)))
        except (pa.ArrowException, ValueError, OverflowError) as error:  # text that is not UTF-8, the year 10000
            raise DataError(
                f"{source}: the column {name!r} holds what cannot be read: {error}. Correct it or leave the column out."
            ) from None
    entries = zip(*columns, strict=True)
    return [Row(f"row {k}", dict(zip(table.column_names, entry, strict=True))) for k, entry in enumerate(entries, 1)]


def _shortest(values: list[Any], kind: str) -> list[Any]:
    """Numbers of half and single precision as they were written: 0.1 was stored as 0.10000000149011612."""
    if kind not in _SHORT_FLOATS:
        return values
    import numpy as np

    precise = getattr(np, _SHORT_FLOATS[kind])
    return [None if value is None else float(str(precise(value))) for value in values]


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _read_directory(path: Path, split: str) -> list[Row]:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        from dopr.tasks.hub import read_saved

        return read_saved(path, split=split)
    files = _files(path)
    if not files:
        raise DataError(f"The directory {path} holds no data: no {_known()} file, and no dataset saved by `datasets`.")
    chosen = [f for f in files if _split_of(f, path) == split]
    named = {name for f in files if (name := _split_of(f, path))}
    if not chosen:
        if named:
            raise NoSplitError(f"The directory {path} has no split {split!r}; it has {', '.join(sorted(named))}.")
        chosen = files
    many = len(chosen) > 1
    return [
        Row(f"{f.relative_to(path)} {row.where}" if many else row.where, row.data)
        for f in chosen
        for row in _read_file(f)
    ]


def _files(path: Path) -> list[Path]:
    return sorted(
        f
        for f in path.rglob("*")
        if f.is_file() and _suffix(f) in READERS and not any(p.startswith(".") for p in f.relative_to(path).parts)
    )


def has_splits(path: Path) -> bool:
    """Whether :func:`read_path` takes one split of ``path`` rather than all that is there."""
    if not path.is_dir() or (path / "dataset_dict.json").exists():
        return path.is_dir()
    return not (path / "state.json").exists() and any(_split_of(f, path) for f in _files(path))


def _split_of(file: Path, root: Path) -> str | None:
    """The split in a file's name (``train-00000-of-00001.parquet``, ``test.jsonl``) or in its directory's."""
    known = ("train", "test", "validation", "valid", "val", "dev", "eval")
    relative = file.relative_to(root)
    for name in (file.stem, *relative.parts[-2::-1]):
        for part in (name, *name.replace("_", "-").split("-")):
            if part.lower() in known:
                return part.lower()
    return None
