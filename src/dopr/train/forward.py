"""One forward over prompts and completions of any lengths, outside TRL's loss."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch


def completion_logits(model: Any, rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int) -> torch.Tensor:
    """Logits that predict each completion token, shape (rows, longest completion, vocabulary), in the model's precision.

    Args:
        model: The policy, wrapped by an engine or not.
        rows: Prompt and completion token ids; both may differ in length. Beyond a row's completion the logits mean nothing.
        pad_id: Padding token id.
    """
    width = max(len(prompt) for prompt, _ in rows)
    last = max(len(completion) for _, completion in rows)
    ids = torch.full((len(rows), width + last), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, (prompt, completion) in enumerate(rows):  # prompts end, and completions begin, at the same column
        here = slice(width - len(prompt), width + len(completion))
        ids[i, here] = torch.tensor([*prompt, *completion])
        mask[i, here] = 1
    inner = getattr(model, "module", model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner  # an adapter hands arguments on
    known = signature(inner.forward).parameters
    device = next(model.parameters()).device
    extra: dict[str, Any] = {
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0).to(device), "logits_to_keep": last + 1, "use_cache": False,
    }  # fmt: skip
    extra = {name: value for name, value in extra.items() if name in known}
    out = model(input_ids=ids.to(device), attention_mask=mask.to(device), **extra)
    logits: torch.Tensor = out.logits[:, -(last + 1) : -1]
    return logits
