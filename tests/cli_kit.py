"""The command line as a user runs it: a subprocess in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Wide enough that no message is wrapped.
ENVIRONMENT = {**os.environ, "COLUMNS": "2000", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "dopr"]


def dopr(cwd: Path, *arguments: str, code: int = 0) -> str:
    """Run ``dopr`` in ``cwd``; its whole output. Fails unless it exits with ``code``."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, f"exit code {done.returncode}, not {code}:\n{output}"
    return output


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def sums(n: int) -> list[dict[str, str]]:
    """``What is 3 + 4?`` problems with ids of their own, for ``n`` up to 100."""
    pairs = [(a, b) for a in range(10) for b in range(10)][:n]
    return [{"id": f"{a}+{b}", "question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in pairs]


def events(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Events of a run, every line parsed on its own."""
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for line in lines if (event := json.loads(line)) and kind in (None, event["kind"])]
