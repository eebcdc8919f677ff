"""What the committed experiments on the latent-strategy world used, against the least possible.

    python benchmarks/bounds_of_runs.py                one more run of every arm (seed 0) that measures its KL, then the page
    python benchmarks/bounds_of_runs.py --arm dopr     one arm only
    python benchmarks/bounds_of_runs.py --summarise    only read the stored results again

The curves of benchmarks/worlds.py hold rollouts and updates but no KL. So every arm runs once more, with its tuned learning rate and
the probe on, and `dopr bound --run --json` is stored in docs/results/bounds.json. The page, docs/results/bounds.md, shows these runs and,
with the divergences measured there, the stored ones of all seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from worlds import ARMS, SEEDS, best_rate, job_key, load_store, spent_at

from dopr import theory
from dopr.tasks.tiny import measured_success
from dopr.tasks.worlds import world_skills

WORLD, TARGET, PROBLEMS = "latent-strategy", 0.71, 256
ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "docs" / "results" / "bounds.json"
PAGE = ROOT / "docs" / "results" / "bounds.md"
RUN_AT = "c272074"  # commit of the stored runs


def run_arm(arm: str, rate: float) -> dict[str, Any]:
    """One run with the probe on: its summary's probe and its bounds."""
    flags, budget, _ = ARMS[arm]
    directory = Path(tempfile.mkdtemp(prefix="dopr-bounds-")) / "run"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable, "-m", "dopr", "train", "--data", f"world:{WORLD}", "--budget", f"rollouts={budget}", "--learning-rate", str(rate),
        "--seed", "0", "--evaluations", "8", "--warn-constant", "0", "--probe", "32", "--trainer", "dopr_probe_every=4",
        "--output", str(directory), *flags,
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    bound = [sys.executable, "-m", "dopr", "bound", "--run", str(directory), "--json"]
    done = subprocess.run(bound, capture_output=True, text=True, env=environment, check=False)
    summary = json.loads((directory / "summary.json").read_text())
    if summary["status"] != "finished":
        raise SystemExit(f"The run of {arm} was {summary['status']}; start again.")
    shutil.rmtree(directory.parent)
    return {
        "exit": done.returncode, "bounds": json.loads(done.stdout), "probe": summary["probe"], "spent": summary["spent"],
        "before": summary["before"]["accuracy"], "after": summary["after"]["accuracy"],
    }  # fmt: skip


def summarise(found: dict[str, Any]) -> None:
    store = load_store()
    rates = [v.rate for v in measured_success(WORLD).values()]
    base = float(np.mean(rates))
    lines = [
        "# Used against the least possible, latent-strategy", "",
        "Made by `python benchmarks/bounds_of_runs.py`; do not edit. What the theorems say: [theory.md](../theory.md). used / bound below 1 would be "
        "a mistake in the theory, the measurement or an assumption.", "",
        f"## One run of every arm with its KL measured (seed 0, `dopr bound --run`, commit {RUN_AT}; the dopr arms 8d07714)", "",
        "| arm | accuracy | nats per update | T2 updates: bound, used | ratio | T3 rollouts: bound | ratio | T5 rollouts: bound, used | ratio | "
        "selection ceiling |", "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for arm, run in found.items():
        row = {r["theorem"]: r for r in run["bounds"]["rows"]}
        kl, ceiling = run["probe"], run["bounds"]["ceiling"]
        lines.append(
            f"| {arm} | {run['before']:.1%} to {run['after']:.1%} | {kl['kl']:.2g} +- {kl['standard_error']:.1g} | "
            f"{row['T2']['bound']:,.0f}, {row['T2']['used']:,.0f} | {row['T2']['ratio']:.1f} | {row['T3']['bound']:,.0f} | "
            f"{row['T3']['ratio']:.0f} | {row['T5']['bound']:,.0f}, {row['T5']['used']:,.0f} | {row['T5']['ratio']:.0f} | "
            f"{ceiling['gain']:.1f}x over random |"
        )
    floor = theory.elicitation_floor(rates, TARGET)
    single = theory.elicitation_floor(rates, TARGET, delta=0.01)
    strategies = [getattr(skill, "right", skill.name) for skill in world_skills(WORLD)]
    shared = theory.elicitation_floor(rates, TARGET, clusters=strategies)
    lines += [
        "", f"## The stored runs of all seeds, to {TARGET:.0%}", "",
        f"T5: {len(floor.skills)} skills must show a first success: {floor.rollouts:.0f} rollouts on average, {single.rollouts:.0f} for the luckiest "
        "hundredth of runs; if the first success of any skill unlocked all with the same right strategy, "
        f"{shared.rollouts:.0f} (such transfer happens, see [few_instances.md](few_instances.md)). T2: updates to the final accuracy, with the divergence measured above. Ranges over seeds.", "",
        f"| arm | rollouts to {TARGET:.0%} | used / T5 | final accuracy | updates | T2 | used / T2 |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for arm in ARMS:
        runs = [store[job_key(WORLD, arm, best_rate(store, WORLD, arm), seed)] for seed in SEEDS]
        spent = [spent_at(r, TARGET, 0) for r in runs]
        ends = [r["curve"][-1][3] for r in runs]
        cells = ["", "", ""]
        if arm in found:
            kappa = found[arm]["probe"]["kl"]
            reached = [min(end, 1 - 0.5 / PROBLEMS) for end in ends]  # all of them right does not show success 1
            least = [
                max(
                    float(theory.travel_updates(r["curve"][0][3], end, kappa)),
                    theory.profile_updates(rates, end, kappa),
                )
                for r, end in zip(runs, reached, strict=True)
            ]
            used = [r["updates"] for r in runs]
            cells = [span(used), span(least), span([u / n for u, n in zip(used, least, strict=True)], ".1f")]
        lines.append(
            f"| {arm} | {span(spent)} | {span([s / floor.rollouts for s in spent], ',.0f')} | {span(ends, '.1%')} | "
            f"{cells[0]} | {cells[1]} | {cells[2]} |"
        )
    ratios = [row["ratio"] for run in found.values() for row in run["bounds"]["rows"] if row["theorem"] == "T2"]
    lines += [
        "", f"What it says: with the steps they took, these runs made {min(ratios):.0f} to {max(ratios):.0f} times the updates of the shortest way: the rest went to "
        "noise, to interference between skills and to groups that teach nothing (no gradient: only the optimizer's momentum moves the policy then). A batch's update goes "
        "many times as far as one prompt's, so few updates are not few rollouts. In rollouts even the best arm is far above T5's floor: what is "
        "expensive is not finding the first success of a skill (in random order that takes about 220 rollouts, see the audit) but everything after it. T1: the first group or the second was mixed in every run. T4: the pool "
        "of 2,000 problems is 22 times what it asks for.",
    ]  # fmt: skip
    beaten = sum(run["exit"] != 0 for run in found.values())
    lines += ["", f"Base success {base:.1%}. Runs of the first table that beat a bound: {beaten}."]
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())


def span(values: list[float], form: str = ",.0f") -> str:
    """``median [least, most]``; a seed that never got there shows as *never*."""

    def show(value: float) -> str:
        return format(value, form) if np.isfinite(value) else "never"

    return f"{show(float(np.median(values)))} [{show(min(values))}, {show(max(values))}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arm", action="append", choices=list(ARMS))
    parser.add_argument("--summarise", action="store_true")
    options = parser.parse_args()
    found = json.loads(STORE.read_text()) if STORE.exists() else {}
    for arm in () if options.summarise else options.arm or ARMS:
        if arm not in found:
            found[arm] = run_arm(arm, best_rate(load_store(), WORLD, arm))
            STORE.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{arm}: {found[arm]['after']:.1%}", flush=True)
    summarise(found)


if __name__ == "__main__":
    main()
