"""The base policy's success per prompt, measured before training for ``dopr bound``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from dopr.config import TrainSettings
from dopr.evaluate import evaluate
from dopr.generation import Sampling

T = TypeVar("T")

_TINY, _OTHERS = 32, 8  # probe prompts by default


def probe_of(
    settings: TrainSettings, held_out: Sequence[dict[str, Any]], trained: Sequence[dict[str, Any]], *, tiny: bool
) -> list[dict[str, Any]]:
    """Rows of the probe: held-out ones; without any, training rows if a probe was asked for, else none."""
    wanted = (_TINY if tiny else _OTHERS) if settings.probe is None else settings.probe
    rows = held_out or (trained if settings.probe else [])
    return draw(rows, wanted, settings.seed)


def draw(items: Sequence[T], wanted: int, seed: int) -> list[T]:
    """At most ``wanted`` of the items, drawn by ``seed`` without replacement, in their order."""
    rng = np.random.default_rng([seed, 0x9B0])
    return [items[i] for i in sorted(rng.permutation(len(items))[:wanted])]


def base_event(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    scorer: Any,
    sampling: Sampling,
    settings: TrainSettings,
    group: int,
) -> dict[str, Any]:
    """Fields of the ``base`` event: successes of one group of rollouts per probe prompt, sampled as in training."""
    as_trained = replace(sampling, n=group, temperature=1.0 if settings.temperature is None else settings.temperature)
    measured = evaluate(model, tokenizer, rows, scorer, sampling=as_trained)
    return {
        "round": 0, "ids": measured.ids, "skills": measured.skills,
        "successes": [int(n) for n in measured.correct.sum(axis=1)], "samples": group,
        "rollouts": len(measured.ids) * group, "tokens": measured.tokens, "seconds": round(measured.seconds, 3),
    }  # fmt: skip
