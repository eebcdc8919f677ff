"""Click options from a settings dataclass: one place documents a field."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection
from dataclasses import MISSING, fields
from typing import Any, TypeVar, Union, get_args, get_origin

import click

from dopr.config import ProblemSettings
from dopr.config_layers import build, parse_pair, read_config_file
from dopr.errors import ConfigError

S = TypeVar("S", bound=ProblemSettings)


def settings_options(
    cls: type[ProblemSettings], leave_out: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator adding one option per field of ``cls`` not in ``leave_out``, plus ``--config``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(cls)
        for f in reversed([f for f in fields(cls) if f.name not in leave_out]):
            function = _option(f.name, hints[f.name], f.default, f.metadata)(function)
        help_ = "YAML or TOML file with any of these settings; flags win over it."
        return click.option("--config", "config_file", metavar="FILE", help=help_)(function)

    return decorate


def read_settings(
    cls: type[S], config_file: str | None, flags: dict[str, Any], stored: dict[str, Any] | None = None
) -> S:
    """Settings from a stored run, then the config file, then the flags that were given."""
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    for name in ("option", "trainer", "chat_option"):
        if name in given:
            given[name] = dict(parse_pair(pair) for pair in given[name])
    from_file = read_config_file(config_file) if config_file else {}
    for f in fields(cls):
        if f.metadata.get("flag_only") and from_file.get(f.name):
            raise ConfigError(
                f"{f.name} belongs to one start of a run, not into the config file {config_file}. Give it as --{f.name}."
            )
    return build(cls, stored or {}, from_file, given)


def _option(name: str, hint: Any, default: Any, metadata: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    kind = next(k for k in kinds if k is not type(None))
    flag = "--" + name.replace("_", "-")
    shown = (
        ""
        if default in (None, MISSING, (), "")
        else f" [default: {default[0] if isinstance(default, tuple) else default}]"
    )
    help_ = metadata["help"] + ("" if "default" in metadata["help"].lower() or kind is bool else shown)
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_)
    names = [flag, *([metadata["short"]] if "short" in metadata else [])]
    if get_origin(kind) in (tuple, dict):
        inner = get_args(kind)[0] if get_origin(kind) is tuple else str
        return click.option(*names, name, multiple=True, type=inner, help=help_)
    return click.option(*names, name, type=kind, default=None, help=help_)
