"""``dopr train`` without its terminal: load, train, evaluate, and leave a run directory."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dopr.budget import SPENT, Budget
from dopr.config import TrainSettings
from dopr.config_layers import as_dict
from dopr.errors import ConfigError, DoprError, suggest
from dopr.evaluate import Evaluation, Sampling, evaluate
from dopr.generation import check_lengths, context_of, redrawn, tokenize
from dopr.policy import load_policy
from dopr.report import write_report
from dopr.runlog import CONFIG, EVENTS, SUMMARY, read_config, write_json
from dopr.tasks.guard import GuardedReward
from dopr.tasks.problems import to_rows
from dopr.train.callbacks import Progress, RunCallback
from dopr.train.checkpoint import differences, last_complete
from dopr.train.measure import base_event, probe_of
from dopr.train.metadata import category_features, metadata_of
from dopr.train.prepare import (
    Prepared,
    completion_length,
    fit_threads,
    is_tiny,
    is_world,
    learning_rate,
    repeatable,
    rows_per_process,
    run_directory,
    use_chat,
)
from dopr.train.rundir import (
    CHECKPOINTS,
    FINAL,
    check_log,
    check_same,
    check_unfinished,
    in_use,
    resume_point,
    round_at,
    spent_at,
)
from dopr.train.scoring import CombinedReward
from dopr.train.summary import summary_of

DEFAULT_BUDGET, WORLD_BUDGET = "rollouts=2000", "rollouts=1500"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What ``run`` leaves behind."""

    directory: Path
    summary: dict[str, Any]
    report: Path | None


def run(prepared: Prepared, *, progress: Progress, say: Callable[[str], None], report: bool = True) -> Outcome:
    """Train as prepared.

    Args:
        prepared: The checked job.
        progress: Told after every update.
        say: Told one-line messages on what is going on.
        report: Write the report page; ``dopr report`` makes it later.

    Raises:
        DoprError: The run cannot start or go on; a directory made for it is removed if nothing was trained.
    """
    directory = run_directory(prepared.settings)
    with in_use(directory, keep=prepared.settings.resume is not None):
        summary = _run(prepared, directory, progress, say)
        return Outcome(directory=directory, summary=summary, report=write_report(directory) if report else None)


def _run(prepared: Prepared, directory: Path, progress: Progress, say: Callable[[str], None]) -> dict[str, Any]:
    settings = prepared.settings
    resuming = settings.resume is not None
    _check_trainer_settings(settings.trainer)
    model, tokenizer = load_policy(
        prepared.model, dtype=_training_dtype(settings), device=settings.device, trainable=True
    )
    fit_threads(model)
    chat = use_chat(settings, tokenizer)
    columns: dict[str, Any] = {"template": settings.template, "system": settings.system, "chat": chat}
    sampling = _eval_sampling(settings, model)
    scorer = CombinedReward(prepared.rewards, settings.reward_weight, settings.success)
    for reward in prepared.rewards:
        if isinstance(reward, GuardedReward):
            reward.lenient = True  # it has passed the trial; from now on a bad answer costs only its own completion
    held_out = to_rows(prepared.held_out, **columns) if prepared.held_out else []

    def measure(how: Sampling = sampling) -> Evaluation:
        live = trainer.accelerator.unwrap_model(trainer.model)
        if callback.at_target:  # the draws that reached it would flatter what they stopped
            how = redrawn(how)
        return evaluate(live, tokenizer, held_out, scorer, sampling=how)

    callback = RunCallback(
        budget=Budget.parse(settings.budget or (WORLD_BUDGET if is_world(settings) else DEFAULT_BUDGET)),
        evaluations=(20 if is_tiny(model) else 0) if settings.evaluations is None else settings.evaluations,
        measure=measure if held_out else None,
        target=settings.target,
        progress=progress,
        save_minutes=settings.save_minutes,
        # Sampling rewards a policy for being surer of what it would have said anyway; greedy decoding does not.
        decode=None if sampling.greedy else partial(measure, replace(sampling, n=1, temperature=0.0)),
    )
    rows = to_rows(prepared.problems, **columns)
    lengths = tokenize(tokenizer, [row["prompt"] for row in rows], settings.chat_option)
    check_lengths(context_of(model), lengths, sampling.max_new_tokens, [p.id for p in prepared.problems])
    probe_rows = probe_of(settings, held_out, rows, tiny=is_tiny(model))
    trainer = _trainer(prepared, model, tokenizer, rows, directory, callback, [r["prompt"] for r in probe_rows])
    callback.trainer = trainer
    resolved = {
        "model": prepared.model, "rewards": list(prepared.reward_names), "learning_rate": trainer.args.learning_rate,
        "parameters": model.num_parameters(), "problems": len(prepared.problems), "held_out": prepared.held_out_from,
        "data_fingerprint": prepared.fingerprint, "held_out_fingerprint": prepared.held_out_fingerprint,
        "model_fingerprint": trainer.job["model"], "chat": chat,
        "sampling": as_dict(sampling), "group_size": trainer.num_generations,
        "chunk": trainer.selector.rollouts.chunk, "wrong_cap": trainer.selector.rollouts.wrong_cap, "right_cap": trainer.selector.rollouts.right_cap,
        "replay": trainer.selector.n_replay, "replay_updates": trainer.selector.replay_updates,
    }  # fmt: skip
    config = {"settings": as_dict(repeatable(settings)), "resolved": resolved, "versions": _versions()}
    checkpoint = None
    if resuming:
        checkpoint = _resume(directory, config, trainer, callback.budget, force=settings.force, say=say)
    main = trainer.accelerator.is_main_process
    if main:
        write_json(directory / CONFIG, config)
    say(
        f"{len(prepared.problems)} problems, reward {' + '.join(prepared.reward_names)}, held out: {prepared.held_out_from}"
    )
    if checkpoint is None:
        callback.evaluate(trainer, end=True)
        if probe_rows and trainer.events:
            live = trainer.accelerator.unwrap_model(trainer.model)
            base = base_event(live, tokenizer, probe_rows, scorer, sampling, settings, trainer.num_generations)
            trainer.events.write("base", **base)
    if checkpoint is not None and callback.budget.share(spent_at(checkpoint)) >= 1:
        trainer.load_checkpoint(checkpoint)  # it was ended between its last update and its last evaluation
        callback.reason = SPENT
    else:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if main:  # before anything else can fail
        trainer.save_model(str(directory / CHECKPOINTS / FINAL))
        tokenizer.save_pretrained(directory / CHECKPOINTS / FINAL)
    after = callback.evaluate(trainer, end=True)
    if trainer.events:
        trainer.events.write("stop", round=trainer.round, reason=callback.reason)
    summary = summary_of(prepared, trainer, callback, after, directory)
    if main:
        write_json(directory / SUMMARY, summary)
    return summary


def _resume(
    directory: Path, config: dict[str, Any], trainer: Any, budget: Budget, *, force: bool, say: Callable[[str], None]
) -> Path | None:
    """The checkpoint to go on from, after what has changed since was refused, or forced."""
    if not trainer.accelerator.is_main_process:
        return last_complete(directory / CHECKPOINTS)[0]  # the main process checks, and rewrites what it has checked
    for line in check_same(directory, config["settings"], config["resolved"], force=force):
        say(f"Forced: {line}")
    for line in differences(read_config(directory).get("versions", {}), config["versions"]):
        say(f"Version of {line}; results may differ from those of the uninterrupted run.")
    check_unfinished(directory, budget)
    checkpoint, notes = resume_point(directory)
    for note in notes:
        say(note)
    if checkpoint is not None and not force:
        check_log(directory, round_at(checkpoint))
    return checkpoint


def _trainer(
    prepared: Prepared, model: Any, tokenizer: Any, rows: list[dict[str, Any]], directory: Path, callback: RunCallback,
    probe_prompts: list[Any],
) -> Any:  # fmt: skip
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback

    from dopr.train.config import DoPRConfig
    from dopr.train.trainer import DoPRTrainer

    s = prepared.settings
    gpu = next(model.parameters()).device.type != "cpu"
    group = 8 if s.group_size is None else s.group_size
    rows_per_round = rows_per_process(s)
    micro = s.micro_batch or rows_per_round
    values: dict[str, Any] = {
        "output_dir": str(directory / CHECKPOINTS), "use_cpu": not gpu, "bf16": gpu and torch.cuda.is_bf16_supported(),
        "gradient_checkpointing": gpu, "report_to": [], "disable_tqdm": True, "logging_steps": 10,
        "max_steps": 1_000_000, "lr_scheduler_type": "constant", "learning_rate": learning_rate(s, model, len(prepared.problems)),
        "per_device_train_batch_size": micro, "gradient_accumulation_steps": rows_per_round // micro,
        "num_generations": group, "max_completion_length": completion_length(s, model),
        "temperature": 1.0 if s.temperature is None else s.temperature, "top_p": s.top_p, "top_k": s.top_k,
        "chat_template_kwargs": s.chat_option or None, "dopr_success": s.success,
        "reward_weights": list(s.reward_weight) or None, "seed": s.seed,
        "save_strategy": "steps" if s.save_every else "no", "save_steps": s.save_every or 500, "save_total_limit": 2,
        "dopr_strategy": s.strategy, "dopr_candidates": s.candidates, "dopr_chunk": s.chunk, "dopr_wrong_cap": s.wrong_cap,
        "dopr_right_cap": s.right_cap, "dopr_replay": s.replay, "dopr_replay_updates": s.replay_updates, "dopr_options": s.option or None,
        "dopr_events": str(directory / EVENTS), "dopr_warn_constant": s.warn_constant,
        "dopr_stop_constant": s.stop_constant, "dopr_stop_unscorable": s.stop_unscorable,
        "dopr_features": "none" if s.features == "none" else "hidden", "dopr_force_resume": s.force,
        "dopr_probe": len(probe_prompts),
    } | s.trainer  # fmt: skip
    try:
        trainer = DoPRTrainer(
            model=model, reward_funcs=list(prepared.rewards), args=DoPRConfig(**values),
            train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[callback],
            peft_config=_lora(s.lora), probe_prompts=probe_prompts, features=_features(prepared),
        )  # fmt: skip
    except DoprError:
        raise
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"TRL refuses these settings: {error}") from error
    trainer.remove_callback(PrinterCallback)  # the command line shows progress itself; the log keeps everything
    return trainer


def _features(prepared: Prepared) -> NDArray[np.float32] | None:
    """What the strategy is told of the prompts; ``None`` leaves it to the trainer."""
    if prepared.settings.features != "category":
        return None
    return category_features(metadata_of(lambda name: [p.extra.get(name) for p in prepared.problems])["category"])


def _check_trainer_settings(given: dict[str, Any]) -> None:
    """Names and, as far as defaults show them, types: TRL itself takes a text for a number until it computes with it."""
    if not given:
        return
    from dopr.train.config import DoPRConfig

    known = {f.name: f.default for f in fields(DoPRConfig) if f.init}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"TRL's GRPOConfig has no setting {name!r}. {suggest(name, known)}")
        if isinstance(known[name], int | float) and not isinstance(value, int | float | None):
            raise ConfigError(
                f"The trainer setting {name} is {value!r}; its default is {known[name]!r}, so give a value like that."
            )


def _lora(rank: int) -> Any:
    if not rank:
        return None
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError("LoRA needs peft. Run: pip install 'dopr[lora]'.") from None
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def _training_dtype(settings: TrainSettings) -> str:
    # Full fine-tuning keeps float32 master weights (autocast runs the matrix products in bfloat16 on a GPU).
    return "float32" if settings.dtype == "auto" and not settings.lora else settings.dtype


def _eval_sampling(settings: TrainSettings, model: Any) -> Sampling:
    temperature = settings.eval_temperature
    if temperature is None:
        temperature = 1.0 if settings.temperature is None else settings.temperature
    return Sampling(
        n=settings.eval_samples, temperature=temperature, top_p=settings.top_p, top_k=settings.top_k or None,
        max_new_tokens=completion_length(settings, model), seed=settings.seed, batch_size=256 if is_tiny(model) else 64,
        chat_options=settings.chat_option,
    )  # fmt: skip


def _versions() -> dict[str, str]:
    out = {"python": sys.version.split()[0]}
    for name in ("dopr", "torch", "trl", "transformers", "numpy", "peft", "math-verify", "reasoning-gym"):
        with contextlib.suppress(PackageNotFoundError):
            out[name] = version(name)
    return out
