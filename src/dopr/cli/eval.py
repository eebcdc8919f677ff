"""``dopr eval`` on a terminal."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console

from dopr.config import EvalSettings, ProblemSettings, TrainSettings, build
from dopr.errors import RunError
from dopr.evaluate import Sampling, evaluate, tries
from dopr.models import resolve_model
from dopr.policy import load_policy
from dopr.runlog import read_config
from dopr.tasks.problems import to_rows
from dopr.tasks.rewards import preflight, resolve_rewards
from dopr.train.prepare import Prepared, completion_length, fit_threads, is_tiny, load, prepare, reward_names, use_chat
from dopr.train.scoring import CombinedReward


def run_command(settings: EvalSettings) -> None:
    """Evaluate a policy on a problem set, or a finished run as it evaluated itself."""
    console = Console()
    of_run = _prepare_run(settings.run) if settings.run else None
    source: ProblemSettings = settings if of_run is None else of_run.settings
    problems = (
        of_run.held_out if of_run else load(settings, settings.data, split=settings.split or "test", size=settings.size)
    )
    if not problems:
        raise RunError(
            f"The run {settings.run} held no problems out. Evaluate its checkpoint on a file with --model and --data."
        )
    rewards = (
        of_run.rewards if of_run else resolve_rewards(reward_names(settings, problems), timeout=settings.reward_timeout)
    )
    preflight(rewards, problems, timeout=settings.reward_timeout)
    model_name = f"{settings.run}/checkpoints/final" if settings.run else settings.model
    path = resolve_model(model_name)
    from dopr.quiet import quiet_libraries

    quiet_libraries()
    model, tokenizer = load_policy(path, dtype=settings.dtype, device=settings.device)
    fit_threads(model)
    columns: dict[str, Any] = {
        "template": source.template,
        "system": source.system,
        "chat": use_chat(source, tokenizer),
    }
    sampling = _run_sampling(Path(settings.run)) if settings.run else _sampling(settings, model)
    tries(settings.k or None, sampling.n)  # refuses an impossible k before anything is generated
    from dopr.cli.show import eval_table

    with console.status(f"{len(problems)} problems x {sampling.n} samples"):
        evaluation = evaluate(
            model,
            tokenizer,
            to_rows(problems, **columns),
            CombinedReward(rewards, source.reward_weight),
            sampling=sampling,
        )
    summary = evaluation.summary(settings.k or None)
    console.print(eval_table(summary, f"{model_name} on {source.data if of_run is None else of_run.held_out_from}"))
    console.print(
        f"{summary['problems']} problems, {sampling.n} sample(s) each at temperature {sampling.temperature:g}, "
        f"{summary['tokens']:,} tokens, {summary['truncated_share']:.0%} cut off, {summary['unscorable']} unscorable, "
        f"{summary['seconds']:.0f} s",
        highlight=False,
    )
    if settings.output:
        written = evaluation.write(settings.output, settings.k or None)
        console.print(f"Written: {written}", highlight=False, soft_wrap=True)


def _sampling(settings: EvalSettings, model: Any) -> Sampling:
    # One sample per problem means greedy; several need a temperature above 0.
    temperature = (0.0 if settings.n == 1 else 1.0) if settings.temperature is None else settings.temperature
    return Sampling(
        n=settings.n, temperature=temperature, top_p=settings.top_p, top_k=settings.top_k or None,
        max_new_tokens=completion_length(settings, model), seed=settings.seed,
        batch_size=256 if is_tiny(model) else settings.batch_size,
    )  # fmt: skip


def _prepare_run(run: str) -> Prepared:
    """The run's own problems and rewards, loaded again from its config.json."""
    return prepare(build(TrainSettings, read_config(Path(run))["settings"]))


def _run_sampling(run: Path) -> Sampling:
    stored = read_config(run)["resolved"]["sampling"]
    return Sampling(**{f.name: stored[f.name] for f in fields(Sampling)})
