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

from dopr.cli.main import cli
from dopr.selection import STRATEGIES, Selector, SelectorConfig, chooser, make_selector

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
    for command in ([], *([name] for name in sorted(cli.commands))):
        t = seconds([sys.executable, "-m", "dopr", *command, "--help"])
        print(f"dopr {' '.join([*command, '--help']):26s} {t:6.2f} s   {'ok' if t < 0.5 else 'over the goal of 0.5 s'}")


def round_ms(selector: Selector, rounds: int = 300) -> float:
    """Median milliseconds of ask + tell."""
    rng = np.random.default_rng(0)
    times = []
    for _ in range(rounds):
        rewards = rng.integers(0, 2, 64).astype(float).tolist()
        started = time.perf_counter()
        for pick in selector.ask():
            selector.tell(pick.prompt_id, rewards[: pick.rollouts])
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def make(name: str, pool: int, candidates: int) -> tuple[Selector, float]:
    """A strategy with all it can be given, and the bytes of its arrays per prompt."""
    selector = make_selector(name, range(pool), SelectorConfig(candidates=candidates, prompts_per_round=1))
    if name == "dopr":
        selector.set_features(None, labels=(np.arange(pool) % 64).astype(np.int32) % selector.n_clusters)
    if selector.needs:
        selector.set_metadata({"category": [str(i % 20) for i in range(pool)], "difficulty": np.arange(pool) % 101})
    held = [a for e in selector.estimators().values() for a in vars(e).values() if isinstance(a, np.ndarray)]
    held += [a for a in vars(selector).values() if isinstance(a, np.ndarray)]
    return selector, sum(a.nbytes for a in held) / pool


def selection_times() -> None:
    """Ask + tell per round with 128 candidates, which must not grow with the pool; then a choice from a whole pool."""
    sizes = (10**3, 10**5, 10**7)
    print(
        f"ask + tell, 128 candidates, ms per round for pools of {', '.join(f'{n:,}' for n in sizes)}; bytes per prompt"
    )
    for name in STRATEGIES:
        times, held = [], 0.0
        for n in sizes:
            selector, held = make(name, n, 128)
            times.append(round_ms(selector))
            del selector
        verdict = "ok" if max(times) < 1 and held < 64 else "over the goal of 1 ms and 64 bytes"
        print(
            f"  {name:14s} {'  '.join(f'{t:6.3f}' for t in times)}   {times[-1] / times[0]:4.2f}x   {held:3.0f} B   {verdict}"
        )
    rng, scores = np.random.default_rng(0), np.random.default_rng(1).random(10**6)
    started = time.perf_counter()
    for _ in range(20):
        chooser.argmax(scores, 1, rng)
    print(f"argmax over 10^6 scores         {50 * (time.perf_counter() - started):6.2f} ms")
    for name in ("dopr", "learnability", "mopps"):
        t = round_ms(make(name, 10**6, 10**6)[0], rounds=8)
        print(
            f"{name + ', whole pool of 10^6':31s} {t:6.1f} ms per round   {'ok' if t < 20 else 'over the goal of 20 ms'}"
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
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "dopr", *command], check=True, capture_output=True, env=ENVIRONMENT)
        whole = time.perf_counter() - started
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    rounds = [e["seconds"] for e in events if e["kind"] == "round"]
    in_rounds = sum(r["round"] for r in rounds)
    rounds = rounds[5:]  # the first wait for features and warm-up
    medians = {name: statistics.median(r[name] for r in rounds) for name in ("select", "generate", "round")}
    print(f"tiny policy, one round          {1e3 * medians['round']:6.1f} ms, of which rollouts {medians['generate'] / medians['round']:.0%}, "
          f"selection {medians['select'] / medians['round']:.1%}, update {(medians['round'] - medians['generate'] - medians['select']) / medians['round']:.0%}")  # fmt: skip
    print(
        f"these {len(rounds) + 5} rounds in all          {in_rounds:6.1f} s, {in_rounds / whole:.0%} of the command; start-up, report and the rest {1 - in_rounds / whole:.0%}"
    )


if __name__ == "__main__":
    help_times()
    selection_times()
    round_share()
    verifier_times()
