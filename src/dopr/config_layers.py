"""Settings from layers of values: a stored run, a YAML or TOML file, flags."""

from __future__ import annotations

import contextlib
import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from datetime import date, time
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from dopr.config import ProblemSettings
from dopr.errors import ConfigError, suggest

S = TypeVar("S", bound=ProblemSettings)


def build(cls: type[S], *layers: Mapping[str, Any]) -> S:
    """Settings from layers of values, later ones winning; of names with values (``option``, ``trainer``) one by one.

    Raises:
        ConfigError: Unknown setting, or a value of the wrong type.
    """
    known = {f.name: f for f in fields(cls)}
    hints = typing.get_type_hints(cls)
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            name = str(key).replace("-", "_")
            if name not in known:
                raise ConfigError(f"Unknown setting {key!r}. {suggest(name, known)}")
            new = _convert(name, value, hints[name])
            merged[name] = merged.get(name, {}) | new if isinstance(new, dict) else new
    return cls(**merged)


def read_config_file(path: str) -> dict[str, Any]:
    """Top-level mapping of a .yaml, .yml or .toml file.

    Raises:
        ConfigError: Missing, unreadable or not a mapping.
    """
    file = Path(path)
    if file.suffix not in (".yaml", ".yml", ".toml"):
        raise ConfigError(f"The config file {path} must end in .yaml, .yml or .toml.")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {path} cannot be read: {error}.") from None
    try:
        if file.suffix == ".toml":
            loaded: Any = tomllib.loads(text)
        else:
            import yaml

            loaded = yaml.safe_load(text) or {}
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"The config file {path} is not valid {file.suffix[1:]}: {error}.") from None
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise ConfigError(f"The config file {path} is not valid YAML: {error}.") from None
        raise
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"The config file {path} must hold settings as NAME: VALUE; it holds {type(loaded).__name__}."
        )
    return loaded


def parse_pair(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` with the value read as YAML, so numbers, booleans and lists work."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"{text!r} is not of the form NAME=VALUE.")
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):  # no such date; brackets without end
        parsed = value
    if isinstance(parsed, date):
        parsed = value  # a chat template wants the text, and so does config.json
    # YAML 1.1 reads 1e-5 as text; people mean a number.
    if isinstance(parsed, str):
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return name.strip(), parsed


def as_dict(settings: Any) -> dict[str, Any]:
    """Plain values, for config.json."""
    return dataclasses.asdict(settings)


def _text_of_dates(value: Any) -> Any:
    """YAML and TOML read dates, which no setting is and JSON has not."""
    if isinstance(value, list):
        return [_text_of_dates(item) for item in value]
    return value.isoformat() if isinstance(value, date | time) else value


def _convert(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the field's type, or a ConfigError."""
    kinds = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        origin = get_origin(kind) or kind
        if origin is tuple:
            items = value if isinstance(value, list | tuple) else (value,)
            return tuple(_convert(name, item, get_args(kind)[0]) for item in items)
        if origin is dict and isinstance(value, Mapping):
            return {key: _text_of_dates(one) for key, one in value.items()}
        if origin is bool and isinstance(value, bool):
            return value
        if origin is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if origin is float and not isinstance(value, bool):
            if isinstance(value, int | float):
                return float(value)
            if isinstance(value, str):  # YAML 1.1 reads 1e-5 as text
                try:
                    return float(value)
                except ValueError:
                    pass
        if origin is str and isinstance(value, str):
            return value
        if origin is str and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    wanted = " or ".join("nothing" if k is type(None) else getattr(k, "__name__", str(k)) for k in kinds)
    raise ConfigError(f"Setting {name!r} is {value!r}; it must be {wanted}.")
