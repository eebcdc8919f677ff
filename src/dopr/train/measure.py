"""What ``dopr bound`` needs from a run: the base policy's success per prompt, and the mean divergence of its updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

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


def probe_summary(events: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Mean divergence per update with its standard error, and what measuring it took; None if it was off.

    The error adds two sources: which prompts were drawn (they stay the same over the run, so it is that of the prompts'
    means) and which updates were measured.
    """
    probes = [e for e in events if e["kind"] == "probe"]
    if not probes:
        return None
    values = np.array([e["values"] for e in probes], np.float64)  # (measured, prompts)
    variances = [m.var(ddof=1) / len(m) for m in (values.mean(axis=0), values.mean(axis=1)) if len(m) > 1]
    return {
        "kl": float(values.mean()), "standard_error": math.sqrt(sum(variances)) if variances else None,
        "largest": float(values.mean(axis=1).max()), "measured": len(probes), "prompts": values.shape[1],
        "seconds": round(sum(e["seconds"] for e in probes), 3),
    }  # fmt: skip
