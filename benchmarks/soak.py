"""A long run of the tiny policy: does memory stay flat, do files grow linearly, does throughput hold?

    python benchmarks/soak.py --rounds 2000

writes docs/results/soak.json and docs/results/soak.svg. Memory is the resident set of the process; throughput is in rounds
per processor second, since the machine may be shared.
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


def soak(rounds: int, every: int) -> dict[str, Any]:
    """Run, and sample every ``every`` rounds: memory in MB, log and checkpoint bytes, processor seconds."""
    from dopr.config import TrainSettings
    from dopr.quiet import quiet_libraries
    from dopr.train.prepare import prepare

    quiet_libraries()
    from dopr.train.run import run

    samples: list[dict[str, float]] = []

    def sample(event: dict[str, Any], share: float) -> None:
        if event["round"] % every == 0:
            checkpoint = max(folder.glob("run/checkpoints/checkpoint-*"), key=lambda p: p.stat().st_mtime, default=None)
            size = sum(p.stat().st_size for p in checkpoint.iterdir()) if checkpoint else 0
            samples.append(
                {
                    "round": event["round"],
                    "rollouts": event["spent"]["rollouts"],
                    "memory_mb": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 1e6,
                    "log_bytes": (folder / "run" / "events.jsonl").stat().st_size,
                    "checkpoint_bytes": size,
                    "cpu_seconds": time.process_time(),
                    "seconds": event["spent"]["seconds"],
                    "descriptors": len(os.listdir("/proc/self/fd")),
                }
            )

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = TrainSettings(
            output=str(folder / "run"), budget=f"updates={rounds}", save_every=100, evaluations=4, seed=1
        )
        outcome = run(prepare(settings), progress=sample, say=lambda text: None)
        report = outcome.report.stat().st_size
    return {"rounds": rounds, "samples": samples, "report_bytes": report, "summary": figures(samples)}


def figures(samples: list[dict[str, float]]) -> dict[str, float]:
    """What the page states: growth over the last three quarters of the run, where start-up no longer shows."""
    import numpy as np

    tail = samples[len(samples) // 4 :]
    at = np.array([s["round"] for s in tail])
    memory = np.array([s["memory_mb"] for s in tail])
    log = np.array([s["log_bytes"] for s in tail])
    fit = np.polyfit(at, log, 1)
    speed = np.diff(at) / np.diff([s["cpu_seconds"] for s in tail])
    half = len(speed) // 2
    return {
        "memory_mb_first": float(memory[0]), "memory_mb_last": float(memory[-1]), "memory_mb_highest": float(memory.max()),
        "memory_kb_per_round": float(1000 * np.polyfit(at, memory, 1)[0]), "log_bytes_per_round": float(fit[0]),
        "log_r_squared": float(1 - (log - np.polyval(fit, at)).var() / log.var()),
        "checkpoint_bytes_first": tail[0]["checkpoint_bytes"], "checkpoint_bytes_last": tail[-1]["checkpoint_bytes"],
        "rounds_per_cpu_second_early": float(np.median(speed[:half])),
        "rounds_per_cpu_second_late": float(np.median(speed[half:])),
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
        speed = np.diff(at) / np.diff([s["cpu_seconds"] for s in samples])
        axes[2].plot(at[1:], speed, color="#1f6f8b")
        axes[2].set(ylabel="rounds per processor second", ylim=(0, None))
        for axis in axes:
            axis.set(xlabel="round", xlim=(0, None))
        figure.savefig(path, metadata={"Date": None})
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
