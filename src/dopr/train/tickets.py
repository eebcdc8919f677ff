"""What the dataloader deals instead of prompts, and the prompts' ids."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import torch
from datasets import Dataset

from dopr.errors import ConfigError


def prompt_ids_of(dataset: Dataset, column: str) -> list[str]:
    """Stable ids of a dataset's prompts: the named column, or a hash of each prompt.

    Raises:
        ConfigError: Two rows share an id.
    """
    if column in dataset.column_names:
        ids = [str(value) for value in dataset[column]]
    else:
        texts = (p if isinstance(p, str) else json.dumps(p, sort_keys=True) for p in dataset["prompt"])
        ids = [hashlib.sha1(text.encode()).hexdigest()[:16] for text in texts]
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ConfigError(
            f"Prompt id {twice!r} occurs twice; selection keeps a history per id. Drop the repeated rows."
        )
    return ids


class Tickets(torch.utils.data.Dataset[dict[str, int]]):
    """One content-free item per round: the dataloader may read ahead as it likes."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def __len__(self) -> int:
        return self.rounds

    def __getitem__(self, index: int) -> dict[str, int]:
        if index >= self.rounds:
            raise IndexError(index)
        return {"ticket": index}


class TicketSampler(torch.utils.data.Sampler[int]):
    """Every ticket once per row of its generation window, in order, so that all processes share it."""

    def __init__(self, rounds: int, repeats: int) -> None:
        self.rounds, self.repeats = rounds, repeats

    def __len__(self) -> int:
        return self.rounds * self.repeats

    def __iter__(self) -> Any:
        return (ticket for ticket in range(self.rounds) for _ in range(self.repeats))
