"""Strategies by name, and any other as ``module:Class``."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Union, get_args, get_origin

from dopr.errors import ConfigError, suggest
from dopr.selection.controls import OneShot, RandomOne, Uniform
from dopr.selection.curricula import AdaRft, Dump, Sec
from dopr.selection.dopr_rule import Dopr
from dopr.selection.filters import DifficultyBand, DynamicSampling, Greso, ReinforceAda, Speed
from dopr.selection.knapsack import Knapsack
from dopr.selection.posteriors import Disagreement, HardEasy, Kimi, Learnability, Mopps, Spo
from dopr.selection.selector import Selector
from dopr.selection.settings import SelectorConfig
from dopr.selection.user_code import import_named

STRATEGIES: dict[str, type[Selector]] = {
    cls.name: cls
    for cls in (
        *(Dopr, Uniform, RandomOne, OneShot),
        *(DynamicSampling, DifficultyBand, Greso, Speed, ReinforceAda),
        *(Mopps, Spo, Learnability, Kimi, HardEasy, Disagreement),
        *(Sec, Dump, AdaRft, Knapsack),
    )
}


def check_strategy(name: str) -> type[Selector]:
    """Class of a strategy: a preset, or ``module:Class`` found on the import path or in the working directory.

    Raises:
        ConfigError: Unknown preset (the nearest one is suggested), or nothing of that name to import.
    """
    if ":" in name:
        return _imported(name)
    if name not in STRATEGIES:
        raise ConfigError(f"Unknown strategy {name!r}. {suggest(name, STRATEGIES)} Your own is given as module:Class.")
    return STRATEGIES[name]


def _imported(name: str) -> type[Selector]:
    cls = import_named(name, noun="strategy", kind="Class", error=ConfigError)
    if not (isinstance(cls, type) and issubclass(cls, Selector)):
        raise ConfigError(f"{name!r} is no strategy; it must be a class derived from dopr.Selector.")
    if missing := sorted(cls.__abstractmethods__):
        raise ConfigError(f"Strategy {name!r} does not define {', '.join(missing)}. See docs/strategies.md.")
    if not isinstance(getattr(cls, "name", None), str):
        raise ConfigError(f"Strategy {name!r} has no name; set the class attribute name, it marks saved states.")
    return cls


def make_selector(
    name: str, ids: Sequence[str] | range, config: SelectorConfig, options: Mapping[str, Any] | None = None
) -> Selector:
    """Build a strategy.

    Args:
        name: A preset of ``STRATEGIES`` or ``module:Class``.
        ids: Prompt ids.
        config: Settings shared by all strategies.
        options: The strategy's switches by name, fields of its ``Options``.

    Raises:
        ConfigError: Unknown strategy or option, or a value that cannot be.
    """
    cls = check_strategy(name)
    return cls(ids, config, make_options(cls, options or {}))


def make_options(cls: type[Selector], given: Mapping[str, Any]) -> Any:
    """The strategy's ``Options`` from plain values.

    Raises:
        ConfigError: Unknown option, or a value of the wrong type or range.
    """
    known = {f.name: f for f in fields(cls.Options)}
    hints = typing.get_type_hints(cls.Options)
    values = {}
    for option, value in given.items():
        if option not in known:
            raise ConfigError(
                f"Strategy {cls.name!r} has no option {option!r}. "
                + (suggest(option, known) if known else "It takes none.")
            )
        values[option] = _converted(cls.name, option, value, hints[option], known[option].default)
    return cls.Options(**values)


def _converted(strategy: str, option: str, value: Any, hint: Any, default: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, type(int | None)) else (hint,)
    for kind in kinds:
        if get_origin(kind) is tuple:
            items = value if isinstance(value, list | tuple) else [value]
            return tuple(str(item) for item in items)
        allowed = {float: (int, float), int: (int,), bool: (bool,), type(None): (type(None),)}.get(kind, (str,))
        if isinstance(value, allowed) and (isinstance(value, bool) == (kind is bool)):
            return value
    names = {float: "a number", int: "a whole number", bool: "true or false", type(None): "nothing"}
    wanted = " or ".join(names.get(kind, "text") for kind in kinds)
    raise ConfigError(
        f"Option {option!r} of strategy {strategy!r} is {value!r}; it must be {wanted}. Its default is {default!r}."
    )
