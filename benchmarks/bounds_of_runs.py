"""What the committed experiments on the latent-strategy world used, against the least possible.

    python benchmarks/bounds_of_runs.py                one more run of every arm (seed 0) that measures its KL, then the page
    python benchmarks/bounds_of_runs.py --arm dopr     one arm only
    python benchmarks/bounds_of_runs.py --summarise    only read the stored results again

The curves of benchmarks/suite.py hold rollouts and updates but no KL. So every baseline arm runs once more, with its tuned learning rate
and the probe on, and `dopr bound --run --json` is stored in docs/results/bounds.json. The page, docs/results/bounds.md, shows these runs and,
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
from suite import ARMS, BUDGETS, Stored, load
from suite_numbers import target_of

from dopr import theory
from dopr.compare.results import CURVE
from dopr.tasks.tiny import measured_success
from dopr.tasks.worlds import world_skills

WORLD, PROBLEMS = "latent-strategy", 256
LABELS = [arm.label for arm in ARMS if arm.group == "baseline"]
ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "docs" / "results" / "bounds.json"
PAGE = ROOT / "docs" / "results" / "bounds.md"


def flags_of(arm: str) -> list[str]:
    """An arm of `dopr compare` as flags of `dopr train`."""
    strategy, *pairs = arm.split("+")
    flags = ["--strategy", strategy]
    for pair in pairs:
        name, _, value = pair.partition("=")
        option = name.removeprefix("option.")
        flags += ["--option", f"{option}={value}"] if option != name else [f"--{name.replace('_', '-')}", value]
    return flags


def run_arm(kept: Stored) -> dict[str, Any]:
    """One run with the probe on: its summary's probe and its bounds."""
    flags = flags_of(kept.chosen)
    if "--budget" not in flags:
        flags += ["--budget", f"rollouts={BUDGETS[WORLD][0]}"]
    directory = Path(tempfile.mkdtemp(prefix="dopr-bounds-")) / "run"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable, "-m", "dopr", "train", "--data", f"world:{WORLD}", "--learning-rate", str(kept.rate),
        "--seed", "0", "--evaluations", "8", "--warn-constant", "0", "--probe", "32", "--trainer", "dopr_probe_every=4",
        "--output", str(directory), *flags,
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    bound = [sys.executable, "-m", "dopr", "bound", "--run", str(directory), "--json"]
    done = subprocess.run(bound, capture_output=True, text=True, env=environment, check=False)
    summary = json.loads((directory / "summary.json").read_text())
    if summary["status"] != "finished":
        raise SystemExit(f"The run of {kept.arm} was {summary['status']}; start again.")
    shutil.rmtree(directory.parent)
    return {
        "commit": kept.commit, "exit": done.returncode, "bounds": json.loads(done.stdout), "probe": summary["probe"], "spent": summary["spent"],
        "before": summary["before"]["accuracy"], "after": summary["after"]["accuracy"],
    }  # fmt: skip


def summarise(found: dict[str, Any], stored: dict[str, Stored], target: float) -> None:
    rates = [v.rate for v in measured_success(WORLD).values()]
    base = float(np.mean(rates))
    lines = [
        "# Used against the least possible, latent-strategy", "",
        "Made by `python benchmarks/bounds_of_runs.py`; do not edit. What the theorems say: [theory.md](../theory.md). used / bound below 1 would be "
        "a mistake in the theory, the measurement or an assumption.", "",
        "## One run of every arm with its KL measured (seed 0, `dopr bound --run`)", "",
        "| arm | accuracy | nats per update | T2 updates: bound, used | ratio | T3 rollouts: bound | ratio | T5 rollouts: bound, used | ratio | "
        "selection ceiling |", "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for arm, run in found.items():
        row = {r["theorem"]: r for r in run["bounds"]["rows"]}
        kl, ceiling = run["probe"], run["bounds"]["ceiling"]
        travel, trials, firsts = (row.get(theorem) for theorem in ("T2", "T3", "T5"))
        cells = [
            f"{travel['bound']:,.0f}, {travel['used']:,.0f} | {travel['ratio']:.1f}" if travel else " | ",
            f"{trials['bound']:,.0f} | {trials['ratio']:.0f}" if trials else " | ",
            f"{firsts['bound']:,.0f}, {firsts['used']:,.0f} | {firsts['ratio']:.0f}" if firsts else "left out | ",
            f"{ceiling['gain']:.1f}x over random" if ceiling else "",
        ]
        change = f"{run['before']:.1%} to {run['after']:.1%}"
        lines.append(f"| {arm} | {change} | {kl['kl']:.2g} +- {kl['standard_error']:.1g} | {' | '.join(cells)} |")
    lines += [
        "",
        "Left out: T3 and T5 where rollouts left out what had failed, T2 to T5 where the accuracy did not rise.",
    ]
    floor = theory.elicitation_floor(rates, target)
    single = theory.elicitation_floor(rates, target, delta=0.01)
    audit = json.loads((ROOT / "docs" / "results" / "theory.json").read_text())["unlock"]
    unlocked = min(audit, key=lambda row: abs(row["target"] - target))
    strategies = [getattr(skill, "right", skill.name) for skill in world_skills(WORLD)]
    shared = theory.elicitation_floor(rates, target, clusters=strategies)
    lines += [
        "", f"## The stored runs of all seeds, to {target:.0%}", "",
        f"T5: {len(floor.skills)} skills must show a first success: {floor.rollouts:.0f} rollouts on average, {single.rollouts:.0f} for the luckiest "
        "hundredth of runs; if the first success of any skill unlocked all with the same right strategy, "
        f"{shared.rollouts:.0f} (such transfer happens, see [few_instances.md](few_instances.md)). dopr's search leaves out what has failed, which "
        "T5 does not cover: it may use less. T2: updates to the final accuracy, with the divergence measured above. Ranges over seeds.", "",
        f"| arm | rollouts to {target:.0%} | used / T5 | final accuracy | updates | T2 | used / T2 |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    used_of_floor: list[float] = []
    for arm, kept in stored.items():
        spent = [run.interpolated_spent(target, "rollouts") for run in kept.runs]
        ends = [float(run.correct.mean()) for run in kept.runs]
        used_of_floor.append(float(np.median(spent)) / floor.rollouts)
        cells = ["", "", ""]
        rose = all(end > run.curve[0, CURVE.index("accuracy")] for run, end in zip(kept.runs, ends, strict=True))
        if arm in found and rose:
            kappa = found[arm]["probe"]["kl"]
            reached = [min(end, 1 - 0.5 / PROBLEMS) for end in ends]  # all of them right does not show success 1
            least = [
                max(
                    float(theory.travel_updates(float(run.curve[0, CURVE.index("accuracy")]), end, kappa)),
                    theory.profile_updates(rates, end, kappa),
                )
                for run, end in zip(kept.runs, reached, strict=True)
            ]
            used = [float(run.updates) for run in kept.runs]
            cells = [span(used), span(least), span([u / n for u, n in zip(used, least, strict=True)], ".1f")]
        lines.append(
            f"| {arm} | {span(spent)} | {span([s / floor.rollouts for s in spent], ',.1f')} | {span(ends, '.1%')} | "
            f"{cells[0]} | {cells[1]} | {cells[2]} |"
        )
    ratios = [row["ratio"] for run in found.values() for row in run["bounds"]["rows"] if row["theorem"] == "T2"]
    lines += [
        "", f"What it says: with the steps they took, these runs made {min(ratios):.0f} to {max(ratios):.0f} times the updates of the shortest way: the rest went to "
        "noise, to interference between skills and to groups that teach nothing (no gradient: only the optimizer's momentum moves the policy then). A batch's update goes "
        "many times as far as one prompt's, so few updates are not few rollouts. In rollouts the best arm used "
        f"{min(used_of_floor):.1f} times T5's floor; "
        f"first successes of enough skills for {unlocked['target']:.0%} take {unlocked['random'][0]:.0f} rollouts on the mean with prompts in random order "
        "and plain draws ([the audit](../theory.md)): fewer is what choice and search have saved, more is everything after them. T4: the pool of 2,000 problems is 22 times what it asks for.",
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
    parser.add_argument("--arm", action="append", choices=LABELS)
    parser.add_argument("--summarise", action="store_true")
    options = parser.parse_args()
    stored = {label: kept for label, kept in load().get(WORLD, {}).items() if label in LABELS}
    target = target_of(stored)
    if target is None:
        print(
            f"docs/results/suite.json has no batch GRPO on {WORLD} yet; run benchmarks/suite.py --world {WORLD} first."
        )
        return
    found = json.loads(STORE.read_text()) if STORE.exists() else {}
    # Runs beside curves of another commit would not belong together.
    found = {
        label: run for label, run in found.items() if label in stored and run.get("commit") == stored[label].commit
    }
    for label in () if options.summarise else options.arm or stored:
        if label not in found:
            found[label] = run_arm(stored[label])
            STORE.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{label}: {found[label]['after']:.1%}", flush=True)
    if not found:
        print("docs/results/bounds.json has no run of the suite's arms yet; without --summarise they are run.")
        return
    summarise(found, stored, target)


if __name__ == "__main__":
    main()
