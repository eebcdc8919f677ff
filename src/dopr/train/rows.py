"""Row surgery on TRL's training batches: join chunks, take rows, append replayed successes.

A batch is the dict that ``_generate_and_score_completions`` returns: prompts padded on the left, completions and
everything per token on the right, one value per row otherwise. Shapes: R rows, P prompt tokens, C completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from dopr.errors import ConfigError
from dopr.selection.memory import Success

Batch = dict[str, torch.Tensor]

_PROMPT_KEYS = ("prompt_ids", "prompt_mask")
_TOKEN_KEYS = ("completion_ids", "completion_mask", "old_per_token_logps", "ref_per_token_logps",
               "sampling_per_token_logps", "tool_mask")  # fmt: skip
_ROW_KEYS = ("advantages", "dopr_group")
_SEQUENCE_OR_TOKEN_KEYS = ("importance_sampling_ratio",)  # (R, 1) or (R, C)
_SCALAR_KEYS = ("num_items_in_batch",)
_KNOWN = {*_PROMPT_KEYS, *_TOKEN_KEYS, *_ROW_KEYS, *_SEQUENCE_OR_TOKEN_KEYS, *_SCALAR_KEYS}


def check_text_only(batch: Batch) -> None:
    """Refuse batches with columns this module cannot cut and join (images and the like)."""
    if strange := sorted(set(batch) - _KNOWN):
        raise ConfigError(
            f"Sequential rollouts and replay work on text; this batch also holds {', '.join(strange)}. "
            "Set dopr_chunk, dopr_wrong_cap and dopr_right_cap to num_generations and dopr_replay to 0."
        )


def join(batches: Sequence[Batch], pad_id: int) -> Batch:
    """Stack batches row-wise, padding to the widest; scalars are dropped (recompute them)."""
    out: Batch = {}
    for key in batches[0]:
        if key in _SCALAR_KEYS:
            continue
        parts = [b[key] for b in batches]
        if parts[0].ndim == 2:
            width = max(p.shape[1] for p in parts)
            fill = pad_id if key.endswith("_ids") else 1 if key == "tool_mask" else 0
            left = key in _PROMPT_KEYS
            parts = [pad(p, (width - p.shape[1], 0) if left else (0, width - p.shape[1]), value=fill) for p in parts]
        out[key] = torch.cat(parts)
    return out


def take(batch: Batch, rows: torch.Tensor) -> Batch:
    """The given rows, shape (kept,), in that order; scalars are dropped (recompute them)."""
    return {key: value[rows] for key, value in batch.items() if key not in _SCALAR_KEYS}


def no_rows(batch: Batch) -> Batch:
    """Its columns without rows, as a template for ``success_rows``."""
    wide = {
        key: min(value.shape[1], 2) if key in _SEQUENCE_OR_TOKEN_KEYS else 1
        for key, value in batch.items()
        if value.ndim == 2
    }
    return {
        key: value[:0, : wide[key]] if key in wide else value[:0]
        for key, value in batch.items()
        if key not in _SCALAR_KEYS
    }


def fit_rows(
    strata: NDArray[np.int64], limit: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose at most ``limit`` rows and weights so that the mean over kept rows estimates the mean over all.

    Small strata are kept whole and large ones thinned at random, so that a lone success among many failures always
    stays in the update.

    Args:
        strata: Stratum of each row, shape (R,).
        limit: Most rows to keep.
        rng: Source of the thinning.

    Returns:
        Row numbers, ascending, and their weights (1 when nothing was thinned), both of shape (kept,).
    """
    rows = len(strata)
    if rows <= limit:
        return np.arange(rows), np.ones(rows)
    names, counts = np.unique(strata, return_counts=True)
    kept: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float64]] = []
    room = limit
    for i, position in enumerate(np.argsort(counts, kind="stable")):
        share = min(counts[position], max(1, room // (len(names) - i)), room)
        if share == 0:
            break  # more strata than room
        chosen = rng.choice(np.flatnonzero(strata == names[position]), share, replace=False)
        kept.append(chosen)
        weights.append(np.full(share, counts[position] / share * limit / rows))
        room -= share
    order = np.argsort(np.concatenate(kept))
    return np.concatenate(kept)[order], np.concatenate(weights)[order]


def success_rows(successes: Sequence[Success], template: Batch, pad_id: int, advantage: float) -> Batch:
    """A batch of replayed successes with the same columns as ``template``, and TRL's ``tool_mask``.

    TRL's loss leaves out the tokens where that mask is 0: here those before a success's start.

    Log-probabilities are left at zero: the trainer fills in those of the current and the reference policy, which makes
    the importance ratio 1 and the row's gradient ``advantage`` times that of the log-likelihood.
    """
    device = template["prompt_ids"].device

    def padded(tokens: Sequence[NDArray[np.int64]], *, left: bool, fill: int | None) -> torch.Tensor:
        width = max(map(len, tokens))
        out = torch.full((len(tokens), width), 0 if fill is None else fill, dtype=torch.long)
        for i, ids in enumerate(tokens):
            where = slice(width - len(ids), width) if left else slice(0, len(ids))
            out[i, where] = 1 if fill is None else torch.from_numpy(np.asarray(ids, np.int64))
        return out.to(device)

    prompts, completions = [s.prompt for s in successes], [s.completion for s in successes]
    batch: Batch = {
        "prompt_ids": padded(prompts, left=True, fill=pad_id),
        "prompt_mask": padded(prompts, left=True, fill=None),
        "completion_ids": padded(completions, left=False, fill=pad_id),
        "completion_mask": padded(completions, left=False, fill=None).to(template["completion_mask"].dtype),
        "advantages": torch.full((len(successes),), advantage, device=device, dtype=template["advantages"].dtype),
        "dopr_group": torch.full((len(successes),), -1, device=device, dtype=torch.long),
    }
    before = torch.arange(batch["completion_ids"].shape[1]) < torch.tensor([[s.start] for s in successes])
    batch["tool_mask"] = (~before).to(batch["completion_mask"])
    shape = batch["completion_ids"].shape
    for key in template:
        if key not in batch and key not in _SCALAR_KEYS:
            neutral = 1.0 if key == "importance_sampling_ratio" else 0.0
            width = 1 if template[key].shape[1] == 1 and key in _SEQUENCE_OR_TOKEN_KEYS else shape[1]
            batch[key] = torch.full((shape[0], width), neutral, device=device, dtype=template[key].dtype)
    return batch


def strip_padding(batch: Batch, row: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Prompt and completion token ids of one row without padding."""
    prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
    completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
    return prompt.cpu().numpy(), completion.cpu().numpy()
