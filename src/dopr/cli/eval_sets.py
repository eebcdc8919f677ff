"""The problem sets of ``dopr eval``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dopr.cli.ignored import refuse_ignored
from dopr.config import EvalSettings
from dopr.errors import ConfigError
from dopr.tasks.known_sets import KNOWN_SETS, find_set
from dopr.tasks.problems import Problem
from dopr.tasks.rewards import preflight, resolve_rewards
from dopr.train.held_out import load
from dopr.train.prepare import reward_names

if TYPE_CHECKING:
    from dopr.tasks.rewards import RewardFunction


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """A problem set that is ready to be evaluated."""

    name: str
    known: bool
    settings: EvalSettings
    problems: list[Problem]
    reward_names: tuple[str, ...]
    rewards: list[RewardFunction]


def load_sets(settings: EvalSettings) -> list[EvalSet]:
    """Every set with its rewards, all checked before a model is loaded.

    Raises:
        DoprError: an option that would have no effect, or a set that cannot be used.
    """
    if settings.sets and settings.data != EvalSettings().data:
        raise ConfigError(
            f"--sets stands in place of --data, so data ({settings.data}) would have no effect. Leave it out, or evaluate it "
            f"too: --sets {settings.data}"
        )
    names = [name for entry in settings.sets for name in _split(entry)] or [settings.data]
    found = [find_set(name, settings.data_dir) if name in KNOWN_SETS else (name, "test") for name in names]
    refuse_ignored(settings, [source for source, _ in found])
    sets = []
    for title, name, (source, split) in zip(_titles(names), names, found, strict=True):
        known = name in KNOWN_SETS
        template = settings.template or ("boxed" if known else None)
        own = replace(settings, data=source, split=split, template=template)
        problems = load(own, source, split=settings.split or split, size=settings.size)
        rewards = ("math",) if known and settings.reward == ("auto",) else reward_names(own, problems)
        functions = resolve_rewards(rewards, timeout=settings.reward_timeout)
        preflight(functions, problems, timeout=settings.reward_timeout)
        sets.append(
            EvalSet(name=title, known=known, settings=own, problems=problems, reward_names=rewards, rewards=functions)
        )
    return sets


def _split(entry: str) -> list[str]:
    """``gsm8k,math500`` is two sets; anything else with a comma is one source."""
    parts = [part.strip() for part in entry.split(",")]
    return parts if all(part in KNOWN_SETS for part in parts) else [entry]


def _titles(names: Sequence[str]) -> list[str]:
    """A short name for each set, fit for a directory, no two alike."""
    short = [name if name in KNOWN_SETS else Path(name.replace(":", "-").partition("?")[0]).stem for name in names]
    seen: Counter[str] = Counter()
    titles = []
    for name in short:
        seen[name] += 1
        titles.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return titles
