"""Options that would have no effect are refused: whoever gives one takes it to have had one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dopr.config import ProblemSettings, TrainSettings
from dopr.errors import ConfigError

if TYPE_CHECKING:
    from dopr.train.prepare import Prepared

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
