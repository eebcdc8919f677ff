"""A long run of the tiny policy: does memory stay flat, do files grow linearly, does throughput hold?

    python benchmarks/soak.py --rounds 2000

writes docs/results/soak.json and docs/results/soak.svg. Memory is the resident set of the process. Since the machine may be
shared, throughput is in rollouts per yardstick: the processor time that a fixed piece of similar work takes at that moment.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
_PAGE = os.sysconf("SC_PAGE_SIZE")


def yardstick() -> float:
    """Processor seconds for a fixed mix of small matrix products and interpreter work."""
    import torch

    a = torch.ones(64, 128)
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for i in range(1500):
            a = torch.nn.functional.silu(a @ a.T @ a / 8192) + 1.0
            sum(range(i % 200))
        best = min(best, time.process_time() - began)
    return best


def soak(rounds: int, every: int) -> dict[str, Any]:
    """Run, and sample every ``every`` rounds: memory in MB, log and checkpoint bytes, processor seconds."""
    from dopr.config import TrainSettings
    from dopr.quiet import quiet_libraries
    from dopr.train.prepare import prepare

    quiet_libraries()
    from dopr.train.run import run

    samples: list[dict[str, float]] = []
    aside = 0.0

    def sample(event: dict[str, Any], share: float) -> None:
        if event["round"] % every == 0:
            checkpoint = max(folder.glob("run/checkpoints/checkpoint-*"), key=lambda p: p.stat().st_mtime, default=None)
            size = sum(p.stat().st_size for p in checkpoint.iterdir()) if checkpoint else 0
            before = time.process_time()
            stick = yardstick()
            nonlocal aside
            samples.append(
                {
                    "yardstick": stick,
                    "round": event["round"],
                    "rollouts": event["spent"]["rollouts"],
                    "memory_mb": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 1e6,
                    "log_bytes": (folder / "run" / "events.jsonl").stat().st_size,
                    "checkpoint_bytes": size,
                    "cpu_seconds": before - aside,
                    "seconds": event["spent"]["seconds"],
                    "descriptors": len(os.listdir("/proc/self/fd")),
                }
            )
            aside += time.process_time() - before

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = TrainSettings(
            output=str(folder / "run"), budget=f"updates={rounds}", save_every=100, evaluations=4, seed=1
        )
        outcome = run(prepare(settings), progress=sample, say=lambda text: None)
        report = outcome.report.stat().st_size
    return {"rounds": rounds, "samples": samples, "report_bytes": report, "summary": figures(samples)}


def throughput(samples: list[dict[str, float]]) -> Any:
    """Rollouts per yardstick between samples."""
    import numpy as np

    column = {name: np.array([s[name] for s in samples]) for name in ("rollouts", "cpu_seconds", "yardstick")}
    stick = (column["yardstick"][1:] + column["yardstick"][:-1]) / 2
    return np.diff(column["rollouts"]) / np.diff(column["cpu_seconds"]) * stick


def figures(samples: list[dict[str, float]]) -> dict[str, float]:
    """What the page states: growth over the last three quarters of the run, where start-up no longer shows."""
    import numpy as np

    tail = samples[len(samples) // 4 :]
    at = np.array([s["round"] for s in tail])
    memory = np.array([s["memory_mb"] for s in tail])
    log = np.array([s["log_bytes"] for s in tail])
    fit = np.polyfit(at, log, 1)
    speed = throughput(tail)
    half = len(speed) // 2
    return {
        "memory_mb_first": float(memory[0]), "memory_mb_last": float(memory[-1]), "memory_mb_highest": float(memory.max()),
        "memory_kb_per_round": float(1000 * np.polyfit(at, memory, 1)[0]), "log_bytes_per_round": float(fit[0]),
        "log_r_squared": float(1 - (log - np.polyval(fit, at)).var() / log.var()),
        "checkpoint_bytes_first": tail[0]["checkpoint_bytes"], "checkpoint_bytes_last": tail[-1]["checkpoint_bytes"],
        "rollouts_per_yardstick_early": float(np.median(speed[:half])),
        "rollouts_per_yardstick_late": float(np.median(speed[half:])),
        "descriptors_first": tail[0]["descriptors"], "descriptors_last": tail[-1]["descriptors"],
    }  # fmt: skip


def draw(result: dict[str, Any], path: Path) -> None:
    """Memory, log size and throughput against rounds, side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    samples = result["samples"]
    at = np.array([s["round"] for s in samples])
    with mpl.rc_context({"svg.hashsalt": "dopr", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
        axes[0].plot(at, [s["memory_mb"] for s in samples], color="#1f6f8b")
        axes[0].set(ylabel="resident memory (MB)", ylim=(0, None))
        axes[1].plot(at, [s["log_bytes"] / 1e6 for s in samples], color="#1f6f8b", label="events.jsonl")
        axes[1].plot(at, [s["checkpoint_bytes"] / 1e6 for s in samples], color="#c06014", label="one checkpoint")
        axes[1].set(ylabel="size (MB)", ylim=(0, None))
        axes[1].legend(frameon=False)
        axes[2].plot(at[1:], throughput(samples), color="#1f6f8b")
        axes[2].set(ylabel="rollouts per yardstick", ylim=(0, None))
        for axis in axes:
            axis.set(xlabel="round", xlim=(0, None))
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=RESULTS)
    args = parser.parse_args()
    result = soak(args.rounds, args.every)
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, args.folder / "soak.svg")
    print(json.dumps(result["summary"], indent=1))
    sys.exit(0)


if __name__ == "__main__":
    main()
