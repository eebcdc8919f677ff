"""Prompt features from the base policy: its last hidden state at the last prompt token."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_PROJECTED = 64  # random projection kept per prompt, so that memory stays small for wide models
_BATCH = 64


def hidden_features(model: Any, prompt_ids: Sequence[Sequence[int]], pad_id: int, seed: int) -> NDArray[np.float32]:
    """One vector per prompt, shape (N, min(64, hidden size)).

    Costs one forward pass over every prompt, once, without generation. Prompts are sorted by length to waste little
    on padding; wide states are projected at random (Johnson-Lindenstrauss).

    Args:
        model: A causal language model; left in the mode it was in.
        prompt_ids: Token ids per prompt, none empty.
        pad_id: Padding token id.
        seed: Seed of the projection.
    """
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
    projection: torch.Tensor | None = None
    out: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(prompt_ids)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    # The vocabulary projection is not needed; where the model allows, it is computed for one position only.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter hands arguments on
    cheap = {"logits_to_keep": 1} if "logits_to_keep" in signature(inner.forward).parameters else {}
    with torch.no_grad():
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            width = max(len(prompt_ids[i]) for i in rows)
            ids = torch.full((len(rows), width), pad_id)
            mask = torch.zeros((len(rows), width), dtype=torch.long)
            for r, i in enumerate(rows):
                ids[r, width - len(prompt_ids[i]) :] = torch.tensor(list(prompt_ids[i]))
                mask[r, width - len(prompt_ids[i]) :] = 1
            states = model(input_ids=ids.to(device), attention_mask=mask.to(device), output_hidden_states=True, **cheap)
            last = states.hidden_states[-1][:, -1].float().cpu()
            if last.shape[1] > _PROJECTED:
                if projection is None:
                    generator = torch.Generator().manual_seed(seed)
                    projection = torch.randn(last.shape[1], _PROJECTED, generator=generator) / last.shape[1] ** 0.5
                last = last @ projection
            for r, i in enumerate(rows):
                out[i] = last[r].numpy()
    model.train(was_training)
    return np.stack(out)
