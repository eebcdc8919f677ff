"""The base policy's success per prompt, measured before training for ``dopr bound``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dopr.config import TrainSettings
from dopr.evaluate import evaluate
from dopr.generation import Sampling

_TINY, _OTHERS = 32, 8  # probe prompts by default


def probe_size(settings: TrainSettings, *, tiny: bool) -> int:
    """Prompts of the probe: asked for, or what costs little by the size of the model."""
    return (_TINY if tiny else _OTHERS) if settings.probe is None else settings.probe


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
