"""Checkpoints that can be trusted: sealed when whole, checked before use, and holding what TRL's leave out.

A checkpoint is the directory that transformers' ``Trainer`` writes, plus

    dopr_state.npz               selector, totals, position in the generation window, settings it belongs to
    dopr_window_RANK.safetensors TRL's buffered rollouts, where the checkpoint lies inside a generation window
    dopr_reference.safetensors   the reference policy, where training moves it (sync_ref_model)
    dopr_seal.json               written last: names, sizes and CRC-32 of all files

A process that dies while it writes leaves a directory without a seal; damage afterwards contradicts the seal.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dopr.errors import RunError
from dopr.runlog import read_json, write_json

SEAL = "dopr_seal.json"
SEAL_VERSION = WINDOW_VERSION = 1
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
_NAME = re.compile(r"checkpoint-(\d+)")
#: Larger files are compared by size alone: summing them would take as long as writing them.
_SUM_BYTES = 4 << 30

#: What reading a well-formed state with senseless content raises.
STATE_ERRORS = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)

Window = list[dict[str, Any]]

#: The settings that enter choices, rewards or updates. What rewards are computed by is not among them, nor what TRL may add.
SETTINGS = (
    "seed", "num_generations", "prompts_per_round", "per_device_train_batch_size", "gradient_accumulation_steps",
    "steps_per_generation", "num_iterations", "learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio", "optim",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "bf16", "fp16", "loss_type", "beta",
    "epsilon", "epsilon_high", "delta", "scale_rewards", "reward_weights", "multi_objective_aggregation",
    "importance_sampling_level", "mask_truncated_completions", "top_entropy_quantile", "entropy_coef", "temperature",
    "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "chat_template_kwargs", "max_completion_length",
    "disable_dropout", "sync_ref_model", "ref_model_sync_steps", "ref_model_mixup_alpha", "use_bias_correction_kl", "off_policy_mask_threshold",
    "dopr_strategy",
    "dopr_candidates", "dopr_chunk", "dopr_wrong_cap", "dopr_right_cap", "dopr_replay", "dopr_replay_updates", "dopr_memory", "dopr_replay_weight",
    "dopr_success", "dopr_features", "dopr_options",
)  # fmt: skip
#: Of these, what shapes a buffered window: with any of them changed, it cannot be continued.
GEOMETRY = ("processes", "per_device_train_batch_size", "steps_per_generation", "num_iterations", "num_generations")


# -- whole or not --------------------------------------------------------------------------------------------------


def seal(directory: Path) -> None:
    """Declare the checkpoint in ``directory`` whole."""
    files = {name: _entry(directory / name) for name in _files(directory)}
    write_json(directory / SEAL, {"version": SEAL_VERSION, "files": files})


def unseal(directory: Path) -> None:
    """Take the seal off before anything in ``directory`` is written again or removed."""
    (directory / SEAL).unlink(missing_ok=True)


def flaw(directory: Path) -> str | None:
    """What is wrong with the checkpoint in ``directory``, in a few words; ``None`` if it is whole."""
    if not directory.is_dir():
        return "there is no such directory"
    if not (directory / SEAL).exists():
        return "it was not written to the end"
    try:
        stored = read_json(directory / SEAL)
        version, files = stored["version"], dict(stored["files"])
    except (RunError, KeyError, TypeError, ValueError):
        return f"its {SEAL} is damaged"
    if version != SEAL_VERSION:
        return f"its {SEAL} is of version {version!r}, and this dopr reads {SEAL_VERSION}"
    for name, entry in sorted(files.items()):
        path = directory / name
        if not path.is_file():
            return f"its {name} is missing"
        if not isinstance(entry, dict) or path.stat().st_size != entry.get("bytes"):
            return f"its {name} has {path.stat().st_size:,} bytes instead of {_bytes(entry)}"
        if _entry(path).get("crc32") != entry.get("crc32"):
            return f"its {name} was changed or damaged after it was written"
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint directories in ``folder`` in the order of their updates, whole or not."""
    found = [p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name) and p.is_dir()]
    return sorted(found, key=_step_of)


def last_complete(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint in ``folder``, and for each newer one that is not whole its name and flaw."""
    skipped: list[str] = []
    for checkpoint in reversed(checkpoints(folder)):
        wrong = flaw(checkpoint)
        if wrong is None:
            return checkpoint, skipped
        skipped.append(f"{checkpoint.name}: {wrong}")
    return None, skipped


def prune(folder: Path, newest: Path, keep: int, best: str | None = None) -> None:
    """Remove what is older than the ``keep`` newest sealed checkpoints up to ``newest``, but never ``best``."""
    older = [p for p in checkpoints(folder) if _step_of(p) < _step_of(newest)]
    sealed = [p for p in older if (p / SEAL).exists()]
    spared = {*sealed[max(0, len(sealed) - keep + 1) :]} if keep > 1 else set()
    for checkpoint in older:
        if checkpoint not in spared and not (best and Path(best).name == checkpoint.name):
            unseal(checkpoint)  # a removal cut short must not look whole
            shutil.rmtree(checkpoint, ignore_errors=True)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _files(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file() and p != directory / SEAL)


def _entry(path: Path) -> dict[str, int]:
    size = path.stat().st_size
    if size > _SUM_BYTES:
        return {"bytes": size}
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total = zlib.crc32(block, total)
    return {"bytes": size, "crc32": total}


def _bytes(entry: Any) -> str:
    value = entry.get("bytes") if isinstance(entry, dict) else None
    return f"{value:,}" if isinstance(value, int) else "a known number"


# -- inside a generation window ------------------------------------------------------------------------------------


def save_window(path: Path, window: Window) -> None:
    """Write TRL's buffered micro-batches: a list of dicts of tensors, or None where a column does not apply.

    Columns of another kind (images) cannot be written; they are named in the file, and loading then gives no window.
    """
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    absent: list[str] = []
    strange: set[str] = set()
    for i, batch in enumerate(window):
        for key, value in batch.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{i}.{key}"] = value.detach().cpu().clone().contiguous()  # slices share storage; copies do not
            elif value is None:
                absent.append(f"{i}.{key}")
            else:
                strange.add(key)
    header = {"version": WINDOW_VERSION, "batches": len(window), "none": absent, "left_out": sorted(strange)}
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary, metadata={"dopr": json.dumps(header)})
    temporary.replace(path)


def load_window(path: Path, device: Any) -> Window | None:
    """What ``save_window`` wrote, or ``None`` if a column of it could not be written.

    Raises:
        RunError: The file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["dopr"])
            if header["version"] != WINDOW_VERSION:
                raise ValueError(f"version {header['version']!r} instead of {WINDOW_VERSION}")
            window: Window = [{} for _ in range(header["batches"])]
            for name in file.keys():  # noqa: SIM118 - not a dict
                i, _, key = name.partition(".")
                window[int(i)][key] = file.get_tensor(name).to(device)
            for name in header["none"]:
                i, _, key = name.partition(".")
                window[int(i)][key] = None
            left_out = header["left_out"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be read as a generation window ({error}). Resume from another checkpoint."
        ) from None
    return None if left_out else window


# -- the same job or not -------------------------------------------------------------------------------------------


def job_of(args: Any, ids: Sequence[str], dataset: Any, model: Any, processes: int) -> dict[str, Any]:
    """What must be the same for a resumed run to end as the uninterrupted one, as plain JSON values."""
    settings = {name: getattr(args, name) for name in SETTINGS if hasattr(args, name)}
    job = {
        "processes": processes,
        **settings,
        "data": data_fingerprint(ids, dataset),
        "model": model_fingerprint(model),
    }
    return json.loads(json.dumps(job, default=str))


def data_fingerprint(ids: Sequence[str], dataset: Any) -> str:
    """Number of prompts and a hash of ids and text columns."""
    digest = hashlib.sha256(json.dumps(list(ids)).encode())
    for column in sorted(dataset.column_names):
        if column not in ("image", "images", "audio"):
            for value in dataset[column]:
                digest.update(json.dumps(value, sort_keys=True, default=lambda v: type(v).__name__).encode())
    return f"{len(ids)} prompts, {digest.hexdigest()[:12]}"


def model_fingerprint(model: Any) -> str:
    """Number of parameters and a hash of names, shapes and first values; of the frozen ones alone with an adapter."""
    named = list(model.named_parameters())
    base = [(name, p) for name, p in named if not p.requires_grad] or named
    digest = hashlib.sha256()
    for name, p in base:
        digest.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
        digest.update(p.detach().reshape(-1)[:16].float().cpu().numpy().tobytes())
    return f"{sum(p.numel() for _, p in base)} parameters, {digest.hexdigest()[:12]}"


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``name: A then, B now`` for everything that is not the same."""
    names = [*then, *(name for name in now if name not in then)]
    return [f"{n}: {then.get(n)!r} then, {now.get(n)!r} now" for n in names if then.get(n) != now.get(n)]


def unwritable(error: BaseException | None, directory: Path) -> str | None:
    """The reason, if ``error`` comes from a file below ``directory`` that cannot be written; torch and safetensors wrap it."""
    here = directory.absolute()
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            place = Path(os.fsdecode(error.filename)).absolute() if isinstance(error.filename, str | bytes) else None
            inside = place is not None and (place.is_relative_to(here) or here.is_relative_to(place))
            if error.errno in _FULL or (error.errno in _CLOSED and inside):
                return error.strerror
        text = str(error)
        if type(error).__name__ == "SafetensorError" and "os error" in text.lower():
            return text
        if isinstance(error, RuntimeError) and ("file write failed" in text or "unexpected pos" in text):
            return "a file could not be written to its end (is the disk full?)"
        error = error.__cause__ or error.__context__
    return None


def remove_unfinished(directory: Path) -> None:
    """Remove a checkpoint whose writing failed, so that it does not keep the room a later one needs."""
    unseal(directory)
    shutil.rmtree(directory, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Hand a file's pages to the disk, so that it is not behind a checkpoint that is."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
