"""Selector state on disk: one NPZ, arrays plus a JSON header, nothing pickled, written whole or not at all."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from dopr.errors import RunError

STATE_FILE = "dopr_state.npz"
#: What the zip and NPY readers raise on damaged bytes.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, EOFError, NotImplementedError, RuntimeError, OverflowError,
           MemoryError, zlib.error, struct.error, zipfile.BadZipFile)  # fmt: skip


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a nested dict of plain values and arrays atomically."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    header = json.dumps(_split(state, arrays))
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        # savez would read array names as its own keyword arguments; the header travels as a byte array.
        np.savez(file, allow_pickle=False, header=np.frombuffer(header.encode(), np.uint8), **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote.

    Raises:
        RunError: The file is missing, truncated or not a dopr state.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            header = json.loads(bytes(file["header"]).decode())
            return dict(_join(header, file))
    except FileNotFoundError:
        raise RunError(
            f"{path} is missing, so the selection cannot be resumed. Resume from a complete checkpoint."
        ) from None
    except (*_DAMAGE, OSError) as error:
        raise RunError(
            f"{path} cannot be read as selector state ({error}). Resume from an earlier checkpoint."
        ) from None


def _split(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, dict):
        return {key: _split(item, arrays) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {"__array__": f"a{len(arrays) - 1}"}
    return value


def _join(value: Any, file: Any) -> Any:
    if isinstance(value, dict):
        if "__array__" in value:
            return file[value["__array__"]]
        return {key: _join(item, file) for key, item in value.items()}
    return value
