"""dopr against its controls on the packaged worlds, at several seeds, every arm tuned alike.

    python benchmarks/worlds.py                  run what is missing, then summarise (hours on two cores for everything)
    python benchmarks/worlds.py --world mixed    one world only
    python benchmarks/worlds.py --summarise      only read the stored results again

Each arm gets three learning rates on the same two tuning seeds; the rate with the highest mean accuracy over
the run's evaluations is then run on fresh seeds, which alone are reported. The target of a world is 90 % of the way
from the base policy to batch GRPO's final accuracy. Two single-threaded runs go side by side. Every run is a
`dopr train` in its own process; its curve is stored in docs/results/worlds.json, so an interrupted sweep goes on where
it stopped. From these the script writes docs/results/worlds.md, the figure, and the baseline figures that `dopr train`
prints (src/dopr/assets/baselines.json).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from dopr.compare.page import number
from dopr.compare.results import spent_interval
from dopr.metrics import bootstrap

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "docs" / "results" / "worlds.json"
PAGE = ROOT / "docs" / "results" / "worlds.md"
FIGURE = ROOT / "docs" / "results" / "worlds.svg"
BASELINES = ROOT / "src" / "dopr" / "assets" / "baselines.json"

WORLDS = ("latent-strategy", "mixed", "shared-skill")
TUNING_SEEDS = (100, 101)
SEEDS = (0, 1, 2, 3, 4)
BATCH = "batch GRPO 64 x 8"
ONE, MANY = (5e-5, 1e-4, 2e-4), (2e-4, 4e-4, 8e-4)  # learning rates for one prompt per update, and for batches
ARMS: dict[str, tuple[list[str], int, tuple[float, ...]]] = {  # flags, budget in rollouts, learning rates
    "dopr": ([], 4000, ONE),
    "dopr, but the prompt at random": (["--option", "random=true"], 4000, ONE),
    "one random prompt": (["--strategy", "random-one"], 6000, ONE),
    "one random prompt + sequential + replay": (
        ["--strategy", "random-one", "--wrong-cap", "32", "--replay", "8"],
        4000,
        ONE,
    ),
    "batch GRPO 8 x 8": (["--strategy", "uniform", "--prompts-per-round", "8"], 12000, MANY),
    "DAPO filter 8 x 8": (["--strategy", "dapo", "--prompts-per-round", "8"], 12000, MANY),
    BATCH: (["--strategy", "uniform", "--prompts-per-round", "64"], 30000, MANY),
}


def job_key(world: str, arm: str, rate: float, seed: int) -> str:
    return f"{world} | {arm} | {rate:g} | {seed}"


def run_job(world: str, arm: str, rate: float, seed: int) -> dict[str, Any]:
    """One `dopr train`; its evaluations and totals."""
    flags, budget, _ = ARMS[arm]
    directory = Path(tempfile.mkdtemp(prefix="dopr-bench-")) / "run"
    command = [
        sys.executable, "-m", "dopr", "train", "--data", f"world:{world}", "--budget", f"rollouts={budget}",
        "--learning-rate", str(rate), "--seed", str(seed), "--evaluations", "40", "--warn-constant", "0",
        "--output", str(directory), *flags,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    events = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    summary = json.loads((directory / "summary.json").read_text())
    shutil.rmtree(directory.parent)
    curve = [
        [e["spent"]["rollouts"], e["spent"]["tokens"], round(e["spent"]["seconds"], 2), round(e["accuracy"], 4),
         round(min(e["by_skill"].values()), 4)]
        for e in events if e["kind"] == "eval"
    ]  # fmt: skip
    return {
        "curve": curve,
        "updates": summary["spent"]["updates"],
        "informative": round(summary["informative_share"], 4),
    }


def load_store() -> dict[str, Any]:
    return json.loads(STORE.read_text()) if STORE.exists() else {}


def run_missing(jobs: list[tuple[str, str, float, int]]) -> None:
    """Run the jobs that are not stored yet, two at a time, storing each as it ends."""
    store = load_store()
    todo = [job for job in jobs if job_key(*job) not in store]
    with ThreadPoolExecutor(2) as pool:
        for job, result in zip(todo, pool.map(lambda job: run_job(*job), todo), strict=True):
            store[job_key(*job)] = result
            STORE.parent.mkdir(parents=True, exist_ok=True)
            STORE.write_text(
                "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(store.items())) + "\n}\n"
            )
            print(f"{job_key(*job)}: {result['curve'][-1][3]:.2f} after {result['curve'][-1][0]} rollouts", flush=True)


def mean_accuracy(result: dict[str, Any]) -> float:
    return float(np.mean([point[3] for point in result["curve"]]))


def best_rate(store: dict[str, Any], world: str, arm: str) -> float:
    return max(
        ARMS[arm][2],
        key=lambda rate: np.mean([mean_accuracy(store[job_key(world, arm, rate, s)]) for s in TUNING_SEEDS]),
    )


def spent_at(result: dict[str, Any], target: float, column: int) -> float:
    """Rollouts (0), tokens (1) or seconds (2) at the first evaluation that reaches the target; infinity if none does."""
    return next((float(point[column]) for point in result["curve"] if point[3] >= target), float("inf"))


def summarise(worlds: list[str]) -> None:
    """Write the page, the figure and the packaged baseline figures from the stored runs."""
    store = load_store()
    worlds = [w for w in worlds if job_key(w, BATCH, best_or_none(store, w, BATCH) or 0, SEEDS[-1]) in store]
    lines = [
        "# dopr against its controls on the packaged worlds", "",
        "Made by `python benchmarks/worlds.py`; do not edit. Raw curves: [worlds.json](worlds.json). Medians over "
        f"{len(SEEDS)} fresh seeds with the range over seeds in brackets. Learning rates: three "
        f"per arm, {', '.join(f'{r:g}' for r in ONE)} for one prompt per update and {', '.join(f'{r:g}' for r in MANY)} "
        f"for batches, on {len(TUNING_SEEDS)} other seeds, chosen by mean accuracy over the run. 256 held-out problems, one sample each. Accuracies are means with a 95 % bootstrap interval over "
        "seeds. Seconds are of single-threaded runs on two cores that other runs shared. *not reached* = fewer than half of the seeds within the arm's budget.", "", "![curves](worlds.svg)", "",
    ]  # fmt: skip
    packaged: dict[str, Any] = {}
    drawn: dict[str, tuple[dict[str, list[dict[str, Any]]], float]] = {}
    for world in worlds:
        rates = {arm: best_or_none(store, world, arm) for arm in ARMS}
        runs = {
            arm: [store[key] for s in SEEDS if (key := job_key(world, arm, rate, s)) in store]
            for arm, rate in rates.items()
            if rate is not None
        }
        runs = {arm: results for arm, results in runs.items() if len(results) == len(SEEDS)}
        start = np.mean([r["curve"][0][3] for r in runs[BATCH]])
        end = np.mean([r["curve"][-1][3] for r in runs[BATCH]])
        target = round(float(start + 0.9 * (end - start)), 2)
        lines += [
            f"## {world}: target {target:.0%} (base {start:.1%}, batch GRPO ends at {end:.1%})", "",
            "| arm | learning rate | rollouts to target | x fewer | tokens to target | seconds to target | final accuracy "
            "| worst skill | informative |", "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        reference = np.median([spent_at(r, target, 0) for r in runs[BATCH]])
        for arm, results in runs.items():
            cells = [spent_interval([spent_at(r, target, c) for r in results]) for c in range(3)]
            final = bootstrap([r["curve"][-1][3] for r in results], rng=np.random.default_rng(0))
            worst = np.mean([r["curve"][-1][4] for r in results])
            ratio = "" if cells[0] is None else f"{reference / cells[0]['estimate']:.1f}"
            lines.append(
                f"| {arm} | {rates[arm]:g} | {number(cells[0])} | {ratio} | {number(cells[1])} | {number(cells[2])} | "
                f"{final.estimate:.1%} [{final.low:.1%}, {final.high:.1%}] at {ARMS[arm][1]:,} | {worst:.1%} | "
                f"{np.mean([r['informative'] for r in results]):.0%} |"
            )
        lines.append("")
        packaged[world] = baseline_entry(runs[BATCH], rates[BATCH] or 0.0, target)
        drawn[world] = (runs, target)
    PAGE.write_text("\n".join(lines) + "\n")
    BASELINES.write_text(json.dumps({"command": "python benchmarks/worlds.py", "worlds": packaged}, indent=1) + "\n")
    if drawn:
        draw(drawn)
    print(PAGE.read_text())


def best_or_none(store: dict[str, Any], world: str, arm: str) -> float | None:
    tuned = all(job_key(world, arm, rate, s) in store for rate in ARMS[arm][2] for s in TUNING_SEEDS)
    return best_rate(store, world, arm) if tuned else None


def baseline_entry(results: list[dict[str, Any]], rate: float, target: float) -> dict[str, Any]:
    def interval(values: list[float]) -> dict[str, float]:
        i = bootstrap(values, rng=np.random.default_rng(0))
        return {"estimate": i.estimate, "low": i.low, "high": i.high}

    def at_end(column: int) -> float:
        return float(np.mean([r["curve"][-1][column] for r in results]))

    mean_curve = np.mean([[p[3] for p in r["curve"][:40]] for r in results], axis=0)
    return {
        "name": BATCH, "learning_rate": rate, "seeds": len(results), "target": target,
        "before": float(np.mean([r["curve"][0][3] for r in results])),
        **{name: spent_interval([spent_at(r, target, c) for r in results])
           for c, name in enumerate(("rollouts", "tokens", "seconds"))},
        "end": {"accuracy": interval([r["curve"][-1][3] for r in results]), "rollouts": at_end(0), "tokens": at_end(1),
                "seconds": at_end(2), "updates": float(np.mean([r["updates"] for r in results]))},
        "curve": [[p[0], round(float(a), 4)] for p, a in zip(results[0]["curve"], mean_curve, strict=False)],
    }  # fmt: skip


def draw(figure_data: dict[str, tuple[dict[str, list[dict[str, Any]]], float]]) -> None:
    """Accuracy against rollouts: mean over seeds, band over seeds, logarithmic rollouts."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dopr"
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, len(figure_data), figsize=(5.2 * len(figure_data), 4), squeeze=False)
    for ax, (world, (runs, target)) in zip(axes[0], figure_data.items(), strict=True):
        for colour, (arm, results) in enumerate(runs.items()):
            grid = np.geomspace(50, max(p[0] for p in results[0]["curve"]), 60)
            curves = [np.interp(grid, [p[0] for p in r["curve"]], [p[3] for p in r["curve"]]) for r in results]
            ax.plot(grid, np.mean(curves, axis=0), label=arm, color=f"C{colour}", lw=2)
            ax.fill_between(grid, np.min(curves, axis=0), np.max(curves, axis=0), color=f"C{colour}", alpha=0.15, lw=0)
        ax.axhline(target, color="grey", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel="rollouts", ylabel="held-out accuracy", title=world, ylim=(0, 1))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(frameon=False, fontsize=8)
    fig.tight_layout()
    fig.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", action="append", choices=WORLDS)
    parser.add_argument("--arm", action="append", choices=list(ARMS))
    parser.add_argument("--summarise", action="store_true")
    options = parser.parse_args()
    worlds, arms = options.world or list(WORLDS), options.arm or list(ARMS)
    if not options.summarise:
        for world in worlds:
            run_missing([(world, arm, rate, seed) for arm in arms for rate in ARMS[arm][2] for seed in TUNING_SEEDS])
            store = load_store()
            run_missing([(world, arm, best_rate(store, world, arm), seed) for arm in arms for seed in SEEDS])
    summarise(list(WORLDS))


if __name__ == "__main__":
    main()
