"""What a run was trained on is no test of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from dopr.config import TrainSettings
from dopr.config_layers import build
from dopr.errors import DoprError
from dopr.runlog import CONFIG, read_config
from dopr.tasks.problems import Problem
from dopr.train.prepare import prepare
from dopr.train.rundir import CHECKPOINTS

logger = logging.getLogger("dopr")


def warn_of_trained_on(model: str, name: str, problems: Sequence[Problem]) -> None:
    """Say how many of the problems ``name`` the checkpoint ``model`` of a run of dopr was trained on, if that can be known."""
    checkpoint = Path(model).absolute()
    run = checkpoint.parent.parent
    if checkpoint.parent.name != CHECKPOINTS or not (run / CONFIG).is_file():
        return
    level = logger.level
    try:
        config = read_config(run)
        logger.setLevel(logging.ERROR)  # what the run was warned of is not news
        trained = prepare(build(TrainSettings, config["settings"]))
    except (DoprError, KeyError):
        return  # its data is no longer there
    finally:
        logger.setLevel(level)
    if trained.fingerprint != config["resolved"].get("data_fingerprint"):
        return  # or no longer the same
    seen = {problem.wording for problem in trained.problems}
    shared = sum(problem.wording in seen for problem in problems)
    if shared:
        logger.warning(
            "%d of the %d problems of %s were among those that %s was trained on. `dopr eval --run %s` evaluates it on what it held out.",
            shared, len(problems), name, model, run,
        )  # fmt: skip
