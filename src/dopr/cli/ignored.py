"""Options that would have no effect are refused: whoever gives one takes it to have had one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dopr.config import CompareSettings, ProblemSettings, TrainSettings
from dopr.errors import ConfigError

if TYPE_CHECKING:
    from dopr.train.prepare import Prepared

#: Settings of a single run that a comparison has its own for, and what those are.
OF_ONE_RUN = {
    "strategy": "Name the arms with --strategies.",
    "option": "Give it to an arm, such as --strategies dopr+option.volatility=within.",
    "learning_rate": "Give the rates to try as --learning-rates, or one to an arm, as +learning_rate=1e-5.",
    "target": "Give accuracies whose cost is reported as --targets.",
    "save_every": "A run that was stopped is made anew, complete ones are kept.",
    "save_minutes": "A run that was stopped is made anew, complete ones are kept.",
    "resume": "The same command goes on where it stopped.",
    "force": "The same command goes on where it stopped.",
}
_COLUMNS = ("prompt_column", "answer_column", "id_column")


def refuse_ignored(settings: ProblemSettings, sources: Sequence[str]) -> None:
    """Refuse options about problems that mean nothing for any of ``sources``.

    Raises:
        ConfigError: columns of generated problems, or a split of single files.
    """
    named = [name for name in _COLUMNS if getattr(settings, name) is not None]
    if named and all(source.startswith(("gym:", "world:")) for source in sources):
        raise ConfigError(
            f"{', '.join(sources)}: generated problems have no columns to choose from, so {', '.join(named)} would have no "
            "effect. Leave it out."
        )
    if settings.split is not None and all(Path(source).expanduser().is_file() for source in sources):
        raise ConfigError(
            f"{', '.join(sources)}: a single file has no splits, so split ({settings.split}) would have no effect. Leave it out, "
            "or give a directory or a dataset that has splits."
        )


def refuse_of_one_run(settings: CompareSettings) -> None:
    """Refuse what a config file says of a single run, and two sources of problems.

    Raises:
        ConfigError: a setting that no run of a comparison would have.
    """
    default = {f.name: f for f in dataclasses.fields(CompareSettings)}
    for name, instead in OF_ONE_RUN.items():
        factory = default[name].default_factory
        usual = default[name].default if factory is dataclasses.MISSING else factory()
        if getattr(settings, name) != usual:
            raise ConfigError(
                f"{name} ({getattr(settings, name)}) is of a single run and would have no effect here. {instead}"
            )
    if settings.world is not None and settings.data not in (default["data"].default, f"world:{settings.world}"):
        raise ConfigError(
            f"Both data ({settings.data}) and world ({settings.world}) say where the problems come from. Leave one out."
        )


def refuse_unmeasured(settings: TrainSettings, prepared: Prepared) -> None:
    """Refuse options about evaluations where nothing is held out to evaluate on.

    Raises:
        ConfigError: a target or a number of evaluations that could not be met.
    """
    given = [name for name in ("target", "evaluations") if getattr(settings, name)]
    if given and not prepared.held_out:
        raise ConfigError(
            f"No problems are held out of {settings.data}, so nothing would be evaluated and {', '.join(given)} would have no "
            "effect. Leave it out, or give --eval-data, --eval-problems or more problems."
        )
