"""``dopr eval`` on a terminal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from dopr.cli.eval_sets import EvalSet, load_sets
from dopr.cli.trained_on import warn_of_trained_on
from dopr.config import EvalSettings, TrainSettings
from dopr.config_layers import build
from dopr.errors import ConfigError, DataError, RunError
from dopr.evaluate import Evaluation, Sampling, evaluate, tries
from dopr.evaluate_set import evaluate_set, open_folder, write_summary
from dopr.generation import Completion, Prompt, check_lengths, context_of, generate, redrawn, tokenize
from dopr.models import resolve_model
from dopr.policy import load_policy
from dopr.runlog import CONFIG, EVENTS, SUMMARY, read_config, read_events, read_json, write_json
from dopr.tasks.problems import to_rows
from dopr.tasks.rewards import preflight
from dopr.train.checkpoint import differences
from dopr.train.prepare import completion_length, fit_threads, is_tiny, prepare, use_chat
from dopr.train.scoring import CombinedReward

_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
_KNOWN_LENGTH = (
    4096  # most tokens of a completion on a known set, unless the context is too short or another is asked for
)


def run_command(settings: EvalSettings) -> None:
    """Evaluate a policy on problem sets, or a finished run as it evaluated itself."""
    console = Console()
    if settings.run is not None:
        _evaluate_run(settings, settings.run, console)
        return
    tries(settings.k or None, settings.n)
    sets = load_sets(settings)
    for one in sets:
        warn_of_trained_on(settings.model, one.settings.data or one.name, one.problems)
    model = _Model(settings)
    jobs = [
        (one, to_rows(one.problems, **_shape(one, model)), _sampling(one, model), _folder(settings, one, len(sets) > 1))
        for one in sets
    ]
    for one, rows, sampling, _ in jobs:  # what cannot be is refused before anything is generated
        _check_lengths(one, rows, sampling, model)
    if settings.output is not None and len(sets) > 1:
        _refuse_other_summary(Path(settings.output), settings.model, [one.name for one in sets])
    for one, _, sampling, folder in jobs:
        if folder is not None:
            open_folder(folder, _identity(one, sampling, model))
    summaries: dict[str, dict[str, Any]] = {}
    for one, rows, sampling, folder in jobs:
        evaluation = _evaluate_set(one, rows, sampling, model, folder, console)
        summaries[one.name] = evaluation.summary(settings.k or None)
        if folder is not None:
            written = write_summary(folder, evaluation, settings.k or None)
            console.print(f"Written: {written}", highlight=False, soft_wrap=True)
        _show(console, summaries[one.name], f"{settings.model} on {one.settings.data}", sampling)
    if len(sets) > 1:
        from dopr.cli.show import sets_table

        console.print(sets_table(summaries, settings.model))
        if settings.output is not None:
            path = Path(settings.output) / SUMMARY
            write_json(path, {"model": settings.model, "sets": summaries})
            console.print(f"Written: {path}", highlight=False, soft_wrap=True)


def _refuse_other_summary(output: Path, model: str, names: Sequence[str]) -> None:
    """The table over all sets must not take the place of a run's summary, or of another table."""
    if (output / CONFIG).exists() or (output / EVENTS).exists():
        raise RunError(f"{output} is a run's directory, whose {SUMMARY} would be lost. Give another --output.")
    if (output / SUMMARY).exists():
        stored = read_json(output / SUMMARY)
        if stored.get("model") != model or set(stored.get("sets", ())) - set(names):
            raise RunError(
                f"{output / SUMMARY} is of {stored.get('model')} on {', '.join(stored.get('sets', ()))} and would be lost. Give another --output."
            )


#: What --run leaves to be chosen; all else is as the run evaluated itself.
_BESIDE_RUN = ("run", "temperature", "k", "output", "dtype", "device", "backend", "reward_timeout")


def _evaluate_run(settings: EvalSettings, run: str, console: Console) -> None:
    """The final checkpoint of a run on the run's own held-out problems, drawn as the run drew them or at another temperature."""
    plain = EvalSettings()
    ignored = [
        f.name
        for f in fields(settings)
        if f.name not in _BESIDE_RUN and getattr(settings, f.name) != getattr(plain, f.name)
    ]
    if ignored:
        raise ConfigError(
            f"--run repeats the run's own evaluation, so {', '.join(ignored)} would have no effect. Leave it out, or evaluate the checkpoint "
            f"with --model {run}/checkpoints/final --data ..."
        )
    prepared = prepare(build(TrainSettings, read_config(Path(run))["settings"]))
    if not prepared.held_out:
        raise RunError(
            f"The run {run} held no problems out. Evaluate its checkpoint on a file with --model and --data."
        )
    resolved = read_config(Path(run))["resolved"]
    now = {"data_fingerprint": prepared.fingerprint, "held_out_fingerprint": prepared.held_out_fingerprint}
    known = {name: resolved[name] for name in now if name in resolved}  # an older version stored the first alone
    if changed := differences(known, {name: now[name] for name in known}):
        raise RunError(
            f"The run in {run} cannot be evaluated again with other data ({'; '.join(changed)}): what is held out of it now may "
            f"have been trained on. Set it back, or evaluate {run}/checkpoints/final with --model and --data."
        )
    preflight(prepared.rewards, prepared.held_out, timeout=settings.reward_timeout)
    stored = resolved["sampling"]
    sampling = Sampling(**{f.name: stored[f.name] for f in fields(Sampling) if f.name in stored})
    if any(event.get("redrawn") for event in read_events(Path(run)) if event["kind"] == "eval"):
        sampling = redrawn(sampling)
    if settings.temperature is not None:
        samples = 1 if settings.temperature == 0 else sampling.n
        sampling = replace(sampling, temperature=settings.temperature, n=samples)
    tries(settings.k or None, sampling.n)
    checkpoint = f"{run}/checkpoints/final"
    if settings.output:
        open_folder(Path(settings.output), asdict(sampling) | {"model": checkpoint, "weights": _weights(checkpoint)})
    model = _Model(replace(settings, model=checkpoint))
    if model.policy is None:
        raise RunError(
            "A run is evaluated again with its own backend. Leave out --backend vllm, or use --model and --data."
        )
    source = prepared.settings
    rows = to_rows(
        prepared.held_out, template=source.template, system=source.system, chat=use_chat(source, model.tokenizer)
    )
    reward = CombinedReward(prepared.rewards, source.reward_weight, source.success)
    with console.status(f"{len(rows)} problems x {sampling.n} samples"):
        evaluation = evaluate(model.policy, model.tokenizer, rows, reward, sampling=sampling)
    _show(
        console,
        evaluation.summary(settings.k or None),
        f"{checkpoint} on {prepared.held_out_from}",
        sampling,
    )
    if settings.output:
        written = evaluation.write(settings.output, settings.k or None)
        console.print(f"Written: {written}", highlight=False, soft_wrap=True)


def _show(console: Console, summary: dict[str, Any], title: str, sampling: Sampling) -> None:
    from dopr.cli.show import eval_table

    console.print(eval_table(summary, title))
    console.print(
        f"{summary['problems']} problems, {sampling.n} sample(s) each at temperature {sampling.temperature:g}, "
        f"{summary['tokens']:,} tokens, {summary['truncated_share']:.0%} cut off, {summary['unscorable']} unscorable, "
        f"{summary['seconds']:.0f} s",
        highlight=False,
    )


class _Model:
    """The policy with its backend."""

    def __init__(self, settings: EvalSettings) -> None:
        path = resolve_model(settings.model)
        from dopr.quiet import quiet_libraries, uncollected

        with uncollected():
            quiet_libraries()
        self.policy: Any = None
        self.chunk: int | None = None
        if settings.backend == "vllm":
            from dopr.vllm_generation import CHUNK, VLLMBackend

            self._vllm = VLLMBackend(path, dtype=settings.dtype, seed=settings.seed)
            self.tokenizer, self.context, self.chunk = self._vllm.tokenizer, self._vllm.context, CHUNK
            return
        with uncollected():  # the imports are in here
            self.policy, self.tokenizer = load_policy(path, dtype=settings.dtype, device=settings.device)
        fit_threads(self.policy)
        self.context = context_of(self.policy)

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        if self.policy is None:
            return self._vllm(prompts, sampling)
        return generate(self.policy, self.tokenizer, prompts, sampling)


def _sampling(one: EvalSet, model: _Model) -> Sampling:
    settings = one.settings
    # One sample per problem means greedy; several need a temperature above 0.
    temperature = (0.0 if settings.n == 1 else 1.0) if settings.temperature is None else settings.temperature
    if settings.max_completion_length is not None:
        length = settings.max_completion_length
    elif one.known or model.policy is None:
        length = min(_KNOWN_LENGTH, 3 * (model.context or 2 * _KNOWN_LENGTH) // 4)
    else:
        length = completion_length(settings, model.policy)
    return Sampling(
        n=settings.n, temperature=temperature, top_p=settings.top_p, top_k=settings.top_k or None, max_new_tokens=length,
        seed=settings.seed, chat_options=settings.chat_option,
        batch_size=256 if model.policy is not None and is_tiny(model.policy) else settings.batch_size,
    )  # fmt: skip


def _check_lengths(one: EvalSet, rows: list[dict[str, Any]], sampling: Sampling, model: _Model) -> None:
    """Refuse prompts that leave no room, before another set has cost hours; by id, as chunks are sorted by length."""
    prompt_ids = tokenize(model.tokenizer, [row["prompt"] for row in rows], sampling.chat_options)
    try:
        check_lengths(model.context, prompt_ids, sampling.max_new_tokens, [p.id for p in one.problems])
    except DataError as error:
        raise DataError(f"{one.settings.data}: {error}") from None


def _folder(settings: EvalSettings, one: EvalSet, several: bool) -> Path | None:
    return None if settings.output is None else Path(settings.output) / (one.name if several else "")


def _shape(one: EvalSet, model: _Model) -> dict[str, Any]:
    settings = one.settings
    return {"template": settings.template, "system": settings.system, "chat": use_chat(settings, model.tokenizer)}


def _identity(one: EvalSet, sampling: Sampling, model: _Model) -> dict[str, Any]:
    """What must not change for an evaluation to go on."""
    settings = one.settings
    problems = [[p.id, p.prompt, p.answer, p.extra.get("tests")] for p in one.problems]
    digest = hashlib.sha256(json.dumps(problems, default=str).encode()).hexdigest()
    return _shape(one, model) | asdict(sampling) | {
        "model": settings.model, "weights": _weights(settings.model), "source": settings.data, "problems": digest[:16], "reward": list(one.reward_names),
        "reward_weight": list(settings.reward_weight), "success": settings.success, "dtype": settings.dtype, "backend": settings.backend,
    }  # fmt: skip


def _weights(model: str) -> str | None:
    """Changes when the weights in a local directory do, as those of a run's checkpoint that was trained further."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    stats = [
        (file.name, (s := file.stat()).st_size, s.st_mtime_ns)
        for file in sorted(folder.iterdir())
        if file.suffix in _WEIGHTS
    ]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:16]


def _evaluate_set(
    one: EvalSet, rows: list[dict[str, Any]], sampling: Sampling, model: _Model, folder: Path | None, console: Console
) -> Evaluation:
    with console.status(f"{one.name}: {len(rows)} problems x {sampling.n} samples") as status:

        def progress(done: int, total: int) -> None:
            status.update(f"{one.name}: {done:,} of {total:,} completions")

        return evaluate_set(
            model, rows, CombinedReward(one.rewards, one.settings.reward_weight, one.settings.success), sampling=sampling, folder=folder,
            chunk=model.chunk, progress=progress,
        )  # fmt: skip
