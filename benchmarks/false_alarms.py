"""Which early warnings do sound runs give? Default runs of the packaged worlds, warnings counted by code.

    python benchmarks/false_alarms.py --seeds 1 2

writes docs/results/false_alarms.json: per run its rounds, accuracy before and after, and each warning's round and code.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def alarms(world: str, seed: int) -> dict[str, Any]:
    """Train with the defaults, but without the evaluations in between, and collect the warnings."""
    from dopr.config import TrainSettings
    from dopr.runlog import read_events
    from dopr.train.prepare import prepare
    from dopr.train.run import run

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainSettings(data=f"world:{world}", seed=seed, evaluations=0, probe=0, output=f"{folder}/run")
        outcome = run(prepare(settings), progress=lambda event, share: None, say=lambda text: None)
        events = read_events(outcome.directory)
    return {
        "world": world, "seed": seed, "rounds": sum(e["kind"] == "round" for e in events),
        "before": outcome.summary["before"]["accuracy"], "after": outcome.summary["after"]["accuracy"],
        "warnings": [[e["round"], e["code"]] for e in events if e["kind"] == "warning"],
    }  # fmt: skip


def main() -> None:
    from dopr.quiet import quiet_libraries

    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", nargs="+", default=["latent-strategy", "mixed", "shared-skill"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--write", type=Path, default=RESULTS / "false_alarms.json")
    args = parser.parse_args()
    results = []
    for world in args.worlds:
        for seed in args.seeds:
            results.append(alarms(world, seed))
            print(json.dumps(results[-1]), flush=True)
            args.write.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
