"""Loads the problems of a job, and holds some of them out: no held-out prompt is trained on."""

from __future__ import annotations

import logging

from dopr.config import ProblemSettings, TrainSettings
from dopr.errors import ConfigError
from dopr.tasks.problems import Problem, load_problems, split_holdout
from dopr.tasks.rewards import needs_answer

logger = logging.getLogger("dopr")


def load(settings: ProblemSettings, source: str, *, split: str, size: int | None) -> list[Problem]:
    """Problems of ``source`` with the user's column names."""
    return load_problems(
        source,
        prompt_column=settings.prompt_column,
        answer_column=settings.answer_column,
        id_column=settings.id_column,
        split=split,
        size=size,
        seed=settings.seed,
        require_answer=needs_answer(settings.reward),
        or_tests=settings.reward == ("auto",),
    )


def hold_out(settings: TrainSettings, problems: list[Problem]) -> tuple[list[Problem], list[Problem], str]:
    """Training problems, held-out problems, and where the latter come from.

    Raises:
        ConfigError: an evaluation file shares prompts with the training problems, or nothing would be left to train on.
    """
    wanted = settings.eval_problems
    if wanted == 0:
        return problems, [], "none"
    if settings.eval_data is not None:
        return _from_file(settings, settings.eval_data, problems)
    if settings.data.startswith(("world:", "gym:")):
        size = wanted or (256 if settings.data.startswith("world:") else 64)
        held = load(settings, settings.data, split="test", size=size)
        where = f"{settings.data}, test split"
        _, shared = _without(problems, held)
        if shared:
            # A small task repeats itself. What its generator likes is likelier held out then, and what is left to train on is
            # something else; so the prompts of both splits are dealt anew, each with the same chance.
            both = [*problems, *_without(held, problems)[0]]
            asked = len(problems)
            problems, held = split_holdout(both, min(size, max(1, len(both) // 2)), settings.seed)
            if len(problems) > asked:
                problems = split_holdout(problems, asked, settings.seed)[1]
            where = f"{len(held)} problems held out from both splits of {settings.data}, which share prompts"
        _say_if_fewer(wanted, held, f"{settings.data} repeats itself")
    else:
        n = min(64, len(problems) // 10) if wanted is None else min(wanted, len(problems) // 2)
        problems, held = split_holdout(problems, n, settings.seed)
        _say_if_fewer(wanted, held, f"at most half of the {len(problems) + len(held)} in {settings.data} may be")
        if not held:
            return problems, [], "none"
        where = f"{len(held)} problems held out from the data"
    # A small task repeats itself, and so do files: what is held out must not be trained on.
    kept, shared = _without(problems, held)
    if not kept:
        raise ConfigError(
            f"Every problem of {settings.data} has the prompt of one that is held out; there are too few different problems. "
            "Ask for fewer with --eval-problems, or give --eval-data."
        )
    note = f"; {len(shared)} training problems with the same prompt left out" if shared else ""
    return kept, held, f"{where}{note}"


def _from_file(
    settings: TrainSettings, source: str, problems: list[Problem]
) -> tuple[list[Problem], list[Problem], str]:
    """Held-out problems of a source named for them. Ids may be the same in both: many sets count from 0 in every split."""
    # A file named for evaluation is taken as it is; only generated sources need another split.
    split = "test" if source.startswith(("world:", "gym:")) else settings.split or "train"
    held = load(settings, source, split=split, size=settings.eval_problems)
    _say_if_fewer(settings.eval_problems, held, f"{source} holds no more")
    _, shared = _without(problems, held)
    if shared:
        raise ConfigError(
            f"{len(shared)} training problems are also evaluation problems (same prompt), such as {shared[0].id!r}, so the "
            f"evaluation would not be held out. Remove them from {settings.data} or {source}."
        )
    return problems, held, source


def _without(problems: list[Problem], held: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """The problems whose prompt is not that of a held-out one, white space aside, and the others."""
    wordings = {p.wording for p in held}
    kept: list[Problem] = []
    shared: list[Problem] = []
    for problem in problems:
        (shared if problem.wording in wordings else kept).append(problem)
    return kept, shared


def _say_if_fewer(wanted: int | None, held: list[Problem], why: str) -> None:
    if wanted is not None and len(held) < wanted:
        logger.warning("%d held-out problems were asked for, %d are held out: %s.", wanted, len(held), why)
