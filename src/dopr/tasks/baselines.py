"""Recorded figures of batch GRPO on the packaged worlds, to hold a run against.

The numbers are produced by ``benchmarks/suite.py`` and stored with their seeds, intervals and budgets; nothing here
is typed in by hand.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dopr.config import TrainSettings


def recorded_baseline(settings: TrainSettings) -> dict[str, Any] | None:
    """Batch GRPO's figures for the world and policy of these settings; ``None`` where none were recorded."""
    if settings.model != "tiny":
        return None
    file = files("dopr") / "assets" / "baselines.json"
    if not file.is_file():
        return None
    worlds: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["worlds"]
    return worlds.get(settings.data.removeprefix("world:"))
