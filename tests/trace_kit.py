"""Traces for the tests of replay and rank, and their command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np


def published(tmp_path: Path, series: dict[str, list[float]]) -> Path:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(series))
    return path


def run_dir(tmp_path: Path, rounds: list[list[tuple[str, list[float | None], float | None]]]) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    lines = []
    for number, picks in enumerate(rounds, 1):
        events = []
        for prompt, rewards, disagreement in picks:
            scored = [r for r in rewards if r is not None]
            events.append(
                {"id": prompt, "rewards": rewards, "success": float(np.mean(scored)) if scored else None,
                 "disagreement": disagreement, "skill": None}
            )  # fmt: skip
        lines.append(json.dumps({"kind": "round", "round": number, "picks": events}))
    (directory / "events.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def dopr(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dopr", *arguments], capture_output=True, text=True, check=False)
