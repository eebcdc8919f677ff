"""How few training problems suffice? Nested subsets of 1, 2, 4, ... problems of every packaged world, at several seeds.

    python benchmarks/few_instances.py                what is missing, one run after the other (about an hour on one core)
    python benchmarks/few_instances.py --summarise    only read the stored results again

Every run is `dopr train` on the first N problems of a world's stream (a longer list starts with the shorter one), with
the same budget of rollouts for every N, evaluated on the *whole* world's held-out problems. Each run is stored in
docs/results/few_instances.json as it ends, so an interrupted sweep goes on. From these the script writes
docs/results/few_instances.md and the figure, with the marks of theorem T4 (docs/theory.md).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "docs" / "results" / "few_instances.json"

WORLDS = ("latent-strategy", "mixed", "shared-skill")
SIZES = (1, 2, 4, 8, 16, 32, 64, 256, 2000)
SEEDS = (0, 1, 2, 3, 4)
ARMS: dict[str, dict[str, Any]] = {"dopr": {}, "one random prompt": {"strategy": "random-one"}}
BUDGET = 1200  # rollouts


def job_key(arm: str, world: str, size: int, seed: int) -> str:
    return f"{arm} | {world} | {size} | {seed}"


def run_job(arm: str, world: str, size: int, seed: int) -> dict[str, Any]:
    """One training run: success per skill before and after on the whole world, and what the subset held."""
    from dopr.quiet import quiet_libraries

    quiet_libraries()
    from dopr.config import TrainSettings
    from dopr.train.prepare import prepare
    from dopr.train.run import run

    directory = Path(tempfile.mkdtemp(prefix="dopr-few-"))
    settings = TrainSettings(
        data=f"world:{world}", size=size, seed=seed, budget=f"rollouts={BUDGET}", evaluations=1, eval_samples=2,
        warn_constant=0, output=str(directory / "run"), **ARMS[arm],
    )  # fmt: skip
    prepared = prepare(settings)
    outcome = run(prepared, progress=lambda event, share: None, say=lambda text: None)
    lines = (directory / "run" / "events.jsonl").read_text().splitlines()
    evaluations = [e for e in map(json.loads, lines) if e["kind"] == "eval"]
    shutil.rmtree(directory)
    return {
        "before": round(evaluations[0]["accuracy"], 4),
        "after": round(evaluations[-1]["accuracy"], 4),
        "skills": dict(Counter(p.extra["skill"] for p in prepared.problems)),
        "held_out": len(prepared.held_out),
        "by_skill_before": {k: round(v, 4) for k, v in evaluations[0]["by_skill"].items()},
        "by_skill": {k: round(v, 4) for k, v in evaluations[-1]["by_skill"].items()},
        "rollouts": outcome.summary["spent"]["rollouts"],
        "informative": round(outcome.summary["informative_share"] or 0.0, 4),
        "seconds": round(outcome.summary["spent"]["seconds"], 1),
    }


def load_store() -> dict[str, Any]:
    return json.loads(STORE.read_text()) if STORE.exists() else {}


def run_missing(arms: list[str]) -> None:
    store = load_store()
    for key in [(a, w, n, s) for a in arms for s in SEEDS for w in WORLDS for n in SIZES]:
        if job_key(*key) in store:
            continue
        store[job_key(*key)] = result = run_job(*key)
        lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(store.items()))
        STORE.with_suffix(".tmp").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        STORE.with_suffix(".tmp").replace(STORE)
        print(f"{job_key(*key)}: {result['before']:.3f} -> {result['after']:.3f} in {result['seconds']} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arm", action="append", choices=list(ARMS))
    parser.add_argument("--summarise", action="store_true")
    options = parser.parse_args()
    if not options.summarise:
        run_missing(options.arm or list(ARMS))


if __name__ == "__main__":
    main()
