"""From settings to everything a run needs, cheapest checks first: a mistake is named before any model is loaded."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dopr.config import ProblemSettings, TrainSettings
from dopr.errors import ConfigError, RunError
from dopr.models import resolve_model
from dopr.runlog import CONFIG
from dopr.selection.registry import check_strategy, make_selector
from dopr.selection.settings import SelectorConfig
from dopr.tasks.problems import Problem
from dopr.tasks.rewards import auto_reward, preflight, resolve_rewards
from dopr.tasks.templates import render_prompt
from dopr.train.held_out import hold_out, load
from dopr.train.metadata import CATEGORY_COLUMNS, metadata_of

if TYPE_CHECKING:
    from dopr.tasks.rewards import RewardFunction

_FALLBACK_LENGTH = 256
_SMALL = 10_000_000  # parameters below which a model counts as tiny
_LARGE = 1_000_000_000
_FEW = 32  # problems below which the default learning rate is lower


def is_world(settings: ProblemSettings) -> bool:
    """Whether the problems are a packaged world's."""
    return settings.data.startswith("world:")


def reward_names(settings: ProblemSettings, problems: list[Problem]) -> tuple[str, ...]:
    """The rewards by name, ``auto`` resolved from the source and the golds."""
    if settings.reward != ("auto",):
        return settings.reward
    if is_world(settings):
        return ("world",)
    return ("gym",) if settings.data.startswith("gym:") else (auto_reward(problems),)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked training job."""

    settings: TrainSettings
    problems: list[Problem]
    held_out: list[Problem]
    held_out_from: str
    reward_names: tuple[str, ...]
    rewards: list[RewardFunction]
    model: str

    @property
    def fingerprint(self) -> str:
        """Hash of the training problems, to recognise changed data."""
        return fingerprint_of(self.problems)

    @property
    def held_out_fingerprint(self) -> str:
        """Hash of the held-out problems, likewise."""
        return fingerprint_of(self.held_out)


def fingerprint_of(problems: list[Problem]) -> str:
    """Hash of problems, whatever their order."""
    digest = hashlib.sha256()
    for p in sorted(problems, key=lambda p: p.id):
        # Tests and what a reward of the user's reads are further columns; of what JSON has no word for, its kind.
        row = [p.id, p.prompt, p.answer, p.extra]
        digest.update(json.dumps(row, skipkeys=True, default=lambda value: type(value).__name__).encode())
    return digest.hexdigest()[:16]


def prepare(settings: TrainSettings) -> Prepared:
    """Check everything that can be checked without a model.

    Raises:
        DoprError: Whatever is wrong with settings, problems, rewards or the model's name.
    """
    config = selector_config(settings)
    _check_batch(settings)
    problems = load(settings, settings.data, split=settings.split or "train", size=settings.size)
    names = reward_names(settings, problems)
    rewards = resolve_rewards(names, timeout=settings.reward_timeout)
    problems, held_out, where = hold_out(settings, problems)
    selector = make_selector(settings.strategy, [p.id for p in problems], config, settings.option)
    known = metadata_of(lambda name: [p.extra.get(name) for p in problems])
    selector.set_metadata(known)
    selector.check_metadata()
    if settings.features == "category" and "category" not in known:
        raise ConfigError(
            f"features is 'category', but not every problem of {settings.data} has one. Add a column {CATEGORY_COLUMNS[0]!r} (or "
            f"{', '.join(CATEGORY_COLUMNS[1:])}), or set features to hidden or none."
        )
    for problem in [*problems, *held_out]:  # a template or system message that cannot apply
        render_prompt(problem, settings.template, settings.system, chat=True)
    preflight(rewards, [*problems, *held_out], timeout=settings.reward_timeout)
    return Prepared(
        settings=settings, problems=problems, held_out=held_out, held_out_from=where, reward_names=names,
        rewards=rewards, model=resolve_model(settings.model),
    )  # fmt: skip


def selector_config(settings: TrainSettings) -> SelectorConfig:
    """The selection core's part of the settings."""
    return SelectorConfig(
        group_size=8 if settings.group_size is None else settings.group_size,
        prompts_per_round=prompts_per_round(settings),
        candidates=settings.candidates,
        chunk=settings.chunk,
        wrong_cap=settings.wrong_cap,
        right_cap=settings.right_cap,
        replay=settings.replay,
        replay_updates=settings.replay_updates,
        seed=settings.seed,
    )


def prompts_per_round(settings: TrainSettings) -> int:
    """Prompts per update: as set, or the strategy's default."""
    if settings.prompts_per_round is None:
        return check_strategy(settings.strategy).default_prompts_per_round
    return settings.prompts_per_round


def processes() -> int:
    """How many processes train together: torchrun and accelerate say so in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rows_per_process(settings: TrainSettings) -> int:
    """Rollouts of a plain round that each process holds."""
    return prompts_per_round(settings) * (8 if settings.group_size is None else settings.group_size) // processes()


def _check_batch(settings: TrainSettings) -> None:
    """Processes and micro-batches against the rows of a round, before TRL is imported to say the same less clearly."""
    group = 8 if settings.group_size is None else settings.group_size
    rows = prompts_per_round(settings) * group
    if rows % processes():
        raise ConfigError(
            f"{processes()} processes cannot share the {rows} rows of a round ({prompts_per_round(settings)} prompts x {group} rollouts). Set "
            f"--prompts-per-round or --group-size so that {processes()} divides their product."
        )
    mine, shared = rows // processes(), " for each process" if processes() > 1 else ""
    if settings.micro_batch is not None and (settings.micro_batch < 1 or mine % settings.micro_batch):
        raise ConfigError(
            f"A micro batch of {settings.micro_batch} rows does not divide the {mine} rows of a round{shared} "
            f"({prompts_per_round(settings)} prompts x {group} rollouts). Set --micro-batch to a divisor of {mine}."
        )


def completion_length(settings: ProblemSettings, model: Any) -> int:
    """Most tokens per completion: asked for, or what the world needs, or 256 within a quarter of the context."""
    if settings.max_completion_length is not None:
        return settings.max_completion_length
    if is_world(settings):
        from dopr.tasks.worlds import world_info

        return world_info(settings.data.removeprefix("world:")).max_completion_tokens
    context = getattr(model.config, "max_position_embeddings", None) or 4 * _FALLBACK_LENGTH
    return max(1, min(_FALLBACK_LENGTH, context // 4))


def use_chat(settings: ProblemSettings, tokenizer: Any) -> bool:
    """Whether prompts go through the chat template."""
    if settings.chat is not None:
        if settings.chat and not tokenizer.chat_template:
            raise ConfigError(f"The tokenizer of {settings.model!r} has no chat template. Use --no-chat.")
        return settings.chat
    return bool(tokenizer.chat_template) and not is_world(settings) and settings.model != "tiny"


def is_tiny(model: Any) -> bool:
    """Whether the model is so small that evaluations cost next to nothing."""
    return bool(model.num_parameters() < _SMALL)


def is_tiny_name(model: str) -> bool:
    """The same, from the name alone."""
    return model == "tiny"


def fit_threads(model: Any) -> None:
    """One thread for a tiny model on a CPU: its matrices gain nothing from more, and on a busy machine spinning threads
    cost a factor of twenty.
    """
    import torch

    if is_tiny(model) and next(model.parameters()).device.type == "cpu":
        torch.set_num_threads(1)


def learning_rate(settings: TrainSettings, model: Any, problems: int) -> float:
    """The learning rate asked for, or a default by size of the model and number of training ``problems``.

    A few problems are seen again and again, and at full steps learned by heart (docs/algorithm.md): below 32 the default
    follows the square root of their number, as it would of a batch's.
    """
    if settings.learning_rate is not None:
        return settings.learning_rate
    if is_tiny(model):
        rate = 2e-4
    elif settings.lora or hasattr(model, "get_base_model"):  # new adapters, or a checkpoint that is one
        rate = 2e-5
    else:
        rate = 5e-6 if model.num_parameters() < _LARGE else 1e-6
    return float(f"{rate * min(1.0, math.sqrt(problems / _FEW)):.2g}")


def repeatable(settings: TrainSettings) -> TrainSettings:
    """The settings as stored in config.json: what belongs to one invocation is taken out."""
    return replace(settings, resume=None, force=False)


def run_directory(settings: TrainSettings) -> Path:
    """Where the run writes: the run to resume, the output asked for, or ``runs/`` and a time stamp.

    Raises:
        RunError: There is nothing to resume there, or the output holds something.
    """
    if settings.resume is not None:
        directory = Path(settings.resume)
        if not (directory / CONFIG).exists():
            raise RunError(
                f"{directory} holds no {CONFIG}, so there is no run to resume. Give a run directory; a run that was ended "
                "before it wrote that file had trained nothing and is simply started again."
            )
        return directory
    if settings.output is None and processes() > 1:
        raise RunError("Several processes must write to one directory. Give it as --output.")
    if settings.output is None:
        return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{settings.strategy}-{settings.seed}"
    directory = Path(settings.output)
    # Empty folders and half-written files are what a start that was killed at once leaves behind.
    if directory.exists() and (
        not directory.is_dir() or any(p.suffix != ".tmp" for p in directory.rglob("*") if not p.is_dir())
    ):
        what = "holds another run" if (directory / CONFIG).exists() else "is not an empty directory"
        raise RunError(
            f"The output {directory} {what}. Give a new directory, or continue that run with --resume {directory}."
        )
    return directory
