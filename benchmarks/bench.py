"""Speed, as figures and ratios measured in this one run: `make bench`.

Start-up of the command line, selection per round against the pool's size, and the share of a real training round that
selection takes; verdicts of the maths verifier beside plain math-verify.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from verifier_bench import verifier_times

from dopr.selection import SelectorConfig, make_selector

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def seconds(command: list[str], runs: int = 5) -> float:
    """Median wall-clock of a command after one warm-up."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def help_times() -> None:
    bare = seconds([sys.executable, "-c", "pass"])
    print(f"bare interpreter                {bare:6.2f} s")
    for command in ([], ["train"], ["eval"], ["report"]):
        t = seconds([sys.executable, "-m", "dopr", *command, "--help"])
        print(f"dopr {' '.join([*command, '--help']):26s} {t:6.2f} s   {'ok' if t < 0.5 else 'over the goal of 0.5 s'}")


def selection_times() -> None:
    """Ask + tell per round with 128 candidates; flat in the pool's size if all is well."""
    rng = np.random.default_rng(0)
    first = 0.0
    for n in (10**3, 10**4, 10**5, 10**6, 10**7):
        selector = make_selector("dopr", range(n), SelectorConfig(candidates=128), {"clusters": 64})
        selector.set_features(None, labels=(np.arange(n) % 64).astype(np.int32))
        times = []
        for _ in range(300):
            started = time.perf_counter()
            for pick in selector.ask():
                selector.tell(pick.prompt_id, rng.integers(0, 2, 8).astype(float).tolist())
            times.append(time.perf_counter() - started)
        t = statistics.median(times)
        first = first or t
        per_prompt = sum(a.nbytes for h in selector.estimators().values() for a in h.state_dict().values()) / n
        print(
            f"ask + tell, pool of {n:>10,}   {1e3 * t:6.3f} ms   {t / first:4.2f}x of the smallest   {per_prompt:.0f} bytes per prompt"
        )


def round_share() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [
            "train",
            "--budget",
            "updates=100",
            "--evaluations",
            "0",
            "--eval-problems",
            "0",
            "--output",
            str(run),
        ]
        subprocess.run([sys.executable, "-m", "dopr", *command], check=True, capture_output=True, env=ENVIRONMENT)
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    rounds = [e["seconds"] for e in events if e["kind"] == "round"][5:]
    medians = {name: statistics.median(r[name] for r in rounds) for name in ("select", "generate", "round")}
    print(f"tiny policy, one round          {1e3 * medians['round']:6.1f} ms, of which rollouts {medians['generate'] / medians['round']:.0%}, "
          f"selection {medians['select'] / medians['round']:.1%}")  # fmt: skip


if __name__ == "__main__":
    help_times()
    selection_times()
    round_share()
    verifier_times()
