"""Evaluate one problem set chunk by chunk: every finished problem is on disk at once, and a stopped evaluation goes on.

The chunks and their seeds depend on the problems and the settings alone, so that an evaluation that was stopped gives the same
completions as one that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dopr.errors import RunError
from dopr.evaluate import Completion, Evaluation, Reward, Sampling, judge
from dopr.generation import Progress, Prompt
from dopr.metrics import SUCCESS_THRESHOLD
from dopr.runlog import read_json, write_json, write_lines

Generate = Callable[[Sequence[Prompt], Sampling], list[list[Completion]]]
"""A backend: prompts and how to draw, to ``sampling.n`` completions of each."""

SETTINGS, COMPLETIONS, SUMMARY = "settings.json", "completions.jsonl", "evaluation.json"
_SEED_STEP = 1_000_003


def open_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make ``folder`` ready for an evaluation with ``settings``, new or continued.

    Raises:
        RunError: it holds completions that were drawn with other settings; they are named. Or it holds something else.
    """
    path = folder / SETTINGS
    wanted = json.loads(json.dumps(settings))
    completions = folder / COMPLETIONS
    if path.exists() and completions.exists() and completions.stat().st_size:
        stored = read_json(path)
        other = sorted(name for name in {*stored, *wanted} if stored.get(name) != wanted.get(name))
        if other:
            shown = ", ".join(f"{name} {stored.get(name)!r} there, {wanted.get(name)!r} now" for name in other[:4])
            raise RunError(
                f"{folder} holds an evaluation with other settings ({shown}). Give another --output, or the same settings "
                "to go on with it."
            )
        return
    if not path.exists() and ((folder / SUMMARY).exists() or completions.exists()):
        raise RunError(f"{folder} holds an evaluation of unknown settings. Give another --output, or remove it.")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"The output {folder} is a file. Give a directory as --output.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(settings))


def evaluate_set(
    generate: Generate,
    rows: Sequence[Mapping[str, Any]],
    reward: Reward,
    *,
    sampling: Sampling,
    folder: Path | None = None,
    chunk: int | None = None,
    threshold: float = SUCCESS_THRESHOLD,
    progress: Progress | None = None,
) -> Evaluation:
    """Roll out and verify every problem.

    Args:
        generate: the backend.
        rows: P problems as :func:`dopr.evaluate.evaluate` takes them, with distinct ids.
        reward: a reward function in TRL's signature.
        sampling: how completions are drawn; chunk c is drawn with a seed of its own.
        folder: where completions.jsonl grows problem by problem, and from where finished chunks are taken.
        chunk: completions per chunk; by default ``sampling.batch_size``.
        threshold: a reward of at least this is a success.
        progress: told (rollouts done, rollouts in all) after every chunk.
    """
    n = sampling.n
    order = sorted(range(len(rows)), key=lambda i: (-_length(rows[i]["prompt"]), i))
    size = max(1, (chunk or sampling.batch_size) // n)
    chunks = [order[k : k + size] for k in range(0, len(order), size)]
    ids = [str(row.get("id", i)) for i, row in enumerate(rows)]
    records = _finished(folder, ids, chunks)
    for number, members in enumerate(chunks):
        if not all(ids[i] in records for i in members):
            started = time.perf_counter()
            part = [rows[i] for i in members]
            drawn = generate(
                [row["prompt"] for row in part], replace(sampling, seed=sampling.seed + number * _SEED_STEP)
            )
            rewards, extracted = judge(part, drawn, reward)
            seconds = (time.perf_counter() - started) / len(members)
            new = {
                ids[i]: _record(ids[i], rows[i], drawn[k], rewards[k], extracted[k], seconds)
                for k, i in enumerate(members)
            }
            records |= new
            if folder is not None:
                with (folder / COMPLETIONS).open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(record, default=str) + "\n" for record in new.values())
        if progress is not None:
            progress(sum(len(c) for c in chunks[: number + 1]) * n, len(rows) * n)
    kept = [records[identity] for identity in ids]
    return Evaluation(
        ids=ids,
        golds=[row.get("answer") for row in rows],
        skills=[None if row.get("skill") is None else str(row["skill"]) for row in rows],
        completions=[_completions(record) for record in kept],
        rewards=[record["rewards"] for record in kept],
        extracted=[record["extracted"] for record in kept],
        sampling=sampling,
        threshold=threshold,
        seconds=sum(record["seconds"] for record in kept),
    )


def _length(prompt: Prompt) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)


def _finished(folder: Path | None, ids: Sequence[str], chunks: Sequence[Sequence[int]]) -> dict[str, dict[str, Any]]:
    """Records of the chunks that are whole on disk; what else is in the file, a half-written line too, is removed."""
    path = None if folder is None else folder / COMPLETIONS
    if path is None or not path.exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "seconds" in record:
            found[str(record["id"])] = record
    whole = [ids[i] for members in chunks if all(ids[i] in found for i in members) for i in members]
    kept = {identity: found[identity] for identity in whole}
    write_lines(path, [json.dumps(record) for record in kept.values()])
    return kept


def _record(
    identity: str, row: Mapping[str, Any], completions: Sequence[Completion], rewards: Sequence[float | None],
    extracted: Sequence[str | None], seconds: float,
) -> dict[str, Any]:  # fmt: skip
    return {
        "id": identity,
        "answer": row.get("answer"),
        "skill": row.get("skill"),
        "completions": [completion.text for completion in completions],
        "extracted": list(extracted),
        "rewards": list(rewards),
        "tokens": [completion.n_tokens for completion in completions],
        "truncated": [completion.truncated for completion in completions],
        "seconds": round(seconds, 4),
    }


def _completions(record: Mapping[str, Any]) -> list[Completion]:
    """Completions from their record. Token ids are not kept on disk, only how many there were."""
    columns = zip(record["completions"], record["tokens"], record["truncated"], strict=True)
    return [Completion(text, (-1,) * count, truncated) for text, count, truncated in columns]


def write_summary(folder: Path, evaluation: Evaluation, k: Sequence[int] | None) -> Path:
    """Write evaluation.json, and completions.jsonl again in the problems' order; the path of the former."""
    path = folder / COMPLETIONS
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    place = {identity: i for i, identity in enumerate(evaluation.ids)}
    records.sort(key=lambda record: place[str(record["id"])])
    write_lines(path, [json.dumps(record) for record in records])
    write_json(folder / SUMMARY, evaluation.summary(k))
    return folder / SUMMARY
