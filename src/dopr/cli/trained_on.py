"""What a run was trained on is no test of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dopr.config import TrainSettings
from dopr.config_layers import build
from dopr.runlog import CONFIG, read_config
from dopr.tasks.problems import Problem
from dopr.train.held_out import hold_out, load
from dopr.train.prepare import fingerprint_of
from dopr.train.rundir import CHECKPOINTS

logger = logging.getLogger("dopr")


def warn_of_trained_on(model: str, name: str, problems: Sequence[Problem]) -> None:
    """Say how many of the problems ``name`` the checkpoint ``model`` of a run of dopr was trained on, if that can be known."""
    run = _run_of(model)
    if run is None:
        return
    level = logger.level
    logger.setLevel(logging.ERROR)  # what the run was warned of is not news
    try:
        trained, held_out = _problems_of(read_config(run))
    except Exception:  # noqa: BLE001 - its data is gone or damaged, and the evaluation does not need it
        return
    finally:
        logger.setLevel(level)
    seen = {problem.wording for problem in trained}
    shared = sum(problem.wording in seen for problem in problems)
    if shared:
        advice = f" `dopr eval --run {run}` evaluates it on what it held out." if held_out else ""
        logger.warning(
            "%d of the %d problems of %s were among those that %s was trained on.%s", shared, len(problems), name, model, advice
        )  # fmt: skip


def _run_of(model: str) -> Path | None:
    """The run that a checkpoint's directory is part of."""
    for checkpoint in (Path(model).absolute(), Path(model).resolve()):
        if checkpoint.parent.name == CHECKPOINTS and (checkpoint.parent.parent / CONFIG).is_file():
            return checkpoint.parent.parent
    return None


def _problems_of(config: dict[str, Any]) -> tuple[list[Problem], list[Problem]]:
    """What a run trained on and held out; nothing where its data is no longer what it was."""
    settings = build(TrainSettings, config["settings"])
    problems = load(settings, settings.data, split=settings.split or "train", size=settings.size)
    trained, held_out, _ = hold_out(settings, problems)
    same = fingerprint_of(trained) == config["resolved"].get("data_fingerprint")
    return (trained, held_out) if same else ([], [])
