"""Strategies by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from dopr.errors import ConfigError, suggest
from dopr.selection.baselines import DynamicSampling, RandomOne, Uniform
from dopr.selection.dopr_rule import Dopr, DoprOptions
from dopr.selection.selector import Selector, SelectorConfig

STRATEGIES: dict[str, type[Selector]] = {cls.name: cls for cls in (Dopr, Uniform, DynamicSampling, RandomOne)}


def check_strategy(name: str) -> type[Selector]:
    """Class of a strategy.

    Raises:
        ConfigError: Unknown name; the nearest one is suggested.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"Unknown strategy {name!r}. {suggest(name, STRATEGIES)}")
    return STRATEGIES[name]


def make_selector(
    name: str, ids: Sequence[str] | range, config: SelectorConfig, options: Mapping[str, Any] | None = None
) -> Selector:
    """Build a strategy.

    Args:
        name: ``dopr``, ``uniform``, ``dapo`` or ``random-one``.
        ids: Prompt ids.
        config: Settings shared by all strategies.
        options: The dopr rule's switches by name (see ``DoprOptions``); other strategies take none.

    Raises:
        ConfigError: Unknown strategy or option, or a value that cannot be.
    """
    cls = check_strategy(name)
    options = dict(options or {})
    known = [f.name for f in fields(DoprOptions)] if cls is Dopr else []
    for option, value in options.items():
        if option not in known:
            raise ConfigError(
                f"Strategy {name!r} has no option {option!r}. "
                + (suggest(option, known) if known else "It takes none.")
            )
        default = getattr(DoprOptions(), option)
        wanted = bool if isinstance(default, bool) else str if isinstance(default, str) else (int, float)
        if not (isinstance(value, wanted) or (default is None and value is None)) or (
            isinstance(value, bool) and wanted is not bool
        ):
            raise ConfigError(f"Option {option!r} of strategy {name!r} is {value!r}; its default is {default!r}.")
    if cls is Dopr:
        return Dopr(ids, config, DoprOptions(**options))
    return cls(ids, config)
