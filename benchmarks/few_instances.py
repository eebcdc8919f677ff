"""How few training problems suffice? Nested subsets of 1, 2, 4, ... problems of every packaged world, at several seeds.

    python benchmarks/few_instances.py                what is missing, two runs at a time (an hour or two on two cores)
    python benchmarks/few_instances.py --summarise    only read the stored results again

Every run is `dopr train` on the first N problems of a world's stream (a longer list starts with the shorter one), with
the same budget of rollouts for every N (dopr a third of the other arm's), evaluated on the *whole* world's held-out problems. Each run is stored in
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
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from suite import commit

from dopr import theory
from dopr.tasks.tiny import measured_success
from dopr.tasks.worlds import world_info, world_skills

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "docs" / "results" / "few_instances.json"
PAGE = STORE.with_suffix(".md")
FIGURE = STORE.with_suffix(".svg")

WORLDS = ("latent-strategy", "mixed", "shared-skill")
SIZES = (1, 2, 4, 8, 16, 32, 64, 2000)
SEEDS = (0, 1, 2, 3, 4)
ARMS: dict[str, dict[str, Any]] = {
    "dopr": {"budget": "rollouts=400"},
    "one random prompt": {"strategy": "random-one", "budget": "rollouts=1200"},
}


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
        data=f"world:{world}", size=size, seed=seed, evaluations=1, eval_samples=2,
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
        "commit": commit(),
    }


def load_store() -> dict[str, Any]:
    return json.loads(STORE.read_text()) if STORE.exists() else {}


def run_missing(arms: list[str]) -> None:
    store = load_store()
    keys = [(a, w, n, s) for a in arms for s in SEEDS for w in WORLDS for n in SIZES]
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        runs = {pool.submit(run_job, *key): job_key(*key) for key in keys if job_key(*key) not in store}
        for done in as_completed(runs):
            name, result = runs[done], done.result()
            store[name] = result
            lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(store.items()))
            STORE.with_suffix(".tmp").write_text("{\n" + ",\n".join(lines) + "\n}\n")
            STORE.with_suffix(".tmp").replace(STORE)
            print(f"{name}: {result['before']:.3f} -> {result['after']:.3f} in {result['seconds']} s", flush=True)


def summarise() -> None:
    """Write the page and the figure from the stored runs."""
    store = load_store()
    lines = [
        "# How few problems suffice?", "",
        "Made by `python benchmarks/few_instances.py`; do not edit. Raw figures: [few_instances.json](few_instances.json). `dopr train` on the first N "
        f"problems of a world with the packaged policy and default settings (rates are not tuned), whatever N is with {budgets(store)}; {len(SEEDS)} seeds (other problems each). Accuracy on "
        "256 held-out problems of the *whole* world, two samples each; mean over seeds with their range.", "", "![accuracy against problems](few_instances.svg)", "",
        *finding(store),
    ]  # fmt: skip
    for world in WORLDS:
        info, marks = world_info(world), t4_marks(world)
        lines += [
            f"## {world}: {len(info.skills)} skill{'s' * (len(info.skills) > 1)}", "",
            f"{marks['sentence']} *Ceiling*: what T4 and T5 allow without transfer, every skill of the subset at 100 %, the others at their base rate.", "",
            "| problems | skills among them | ceiling | " + " | ".join(f"{arm}: accuracy | seen skills | unseen skills (before)" for arm in ARMS) + " |",
            "|---" * (3 + 3 * len(ARMS)) + "|",
        ]  # fmt: skip
        for size in SIZES:
            first = runs_of(store, next(iter(ARMS)), world, size)
            cells = [
                f"{size:,}",
                f"{np.mean([len(r['skills']) for r in first]):.3g}",
                f"{np.mean([allowed(r, world) for r in first]):.0%}",
            ]
            for arm in ARMS:
                results = runs_of(store, arm, world, size)
                after = [r["after"] for r in results]
                seen, unseen, was = (np.array([split(r, world)[i] for r in results]) for i in range(3))
                cells += [f"{np.mean(after):.1%} [{min(after):.1%}, {max(after):.1%}]", f"{seen.mean():.0%}"]
                cells.append("" if np.isnan(unseen).all() else f"{np.nanmean(unseen):.0%} ({np.nanmean(was):.0%})")
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
    draw(store)
    print(PAGE.read_text())


def budgets(store: dict[str, Any]) -> str:
    """What each arm may spend, and the commits that ran it."""
    parts = []
    for arm, settings in ARMS.items():
        commits = sorted({run["commit"] for key, run in store.items() if key.startswith(f"{arm} | ")})
        parts.append(f"{int(settings['budget'].split('=')[1]):,} rollouts for {arm} (commit {', '.join(commits)})")
    return " and ".join(parts)


def runs_of(store: dict[str, Any], arm: str, world: str, size: int) -> list[dict[str, Any]]:
    found = [store[key] for seed in SEEDS if (key := job_key(arm, world, size, seed)) in store]
    if len(found) < len(SEEDS):
        raise SystemExit(
            f"{arm} on {size} problems of {world}: {len(found)} of {len(SEEDS)} seeds are stored. Run the script first."
        )
    return found


def split(run: dict[str, Any], world: str) -> tuple[float, float, float]:
    """Final success on the skills of the subset, on the others, and on these others before; NaN where there are none."""
    frequency = {skill.name: skill.frequency for skill in world_info(world).skills}

    def mean(rates: dict[str, float], seen: bool) -> float:
        names = [name for name in frequency if (name in run["skills"]) == seen]
        return sum(frequency[n] * rates[n] for n in names) / sum(frequency[n] for n in names) if names else float("nan")

    return mean(run["by_skill"], True), mean(run["by_skill"], False), mean(run["by_skill_before"], False)


def allowed(run: dict[str, Any], world: str) -> float:
    """Accuracy with every skill of the subset mastered and the others as the base policy has them."""
    base = measured_success(world)
    return sum(s.frequency * (1.0 if s.name in run["skills"] else base[s.name].rate) for s in world_info(world).skills)


def t4_marks(world: str) -> dict[str, Any]:
    """Problems that T4 asks for, and how many of the stream hold every skill (its blocks hold each in proportion)."""
    info = world_info(world)
    shares = [skill.frequency for skill in info.skills]
    rarest, every = float(theory.coverage_instances(min(shares))), theory.coverage_all(shares)
    block = info.block if len(shares) > 1 else 1
    sentence = (
        f"T4: independent draws need {rarest:,.0f} problems to hold the rarest skill with 95 %, {every:,.0f} to hold all. This stream deals whole "
        f"blocks, so {block} hold every skill for sure."
        if len(shares) > 1
        else "T4 asks for a single problem: there is one skill."
    )
    return {"rarest": rarest, "every": every, "block": block, "sentence": sentence}


def finding(store: dict[str, Any]) -> list[str]:
    """What it says in plain words; the numbers are read from the runs."""

    def after(world: str, size: int, arm: str = "dopr") -> str:
        return f"{np.mean([r['after'] for r in runs_of(store, arm, world, size)]):.0%}"

    def parts(world: str, size: int) -> list[float]:
        return [float(np.nanmean([split(r, world)[i] for r in runs_of(store, "dopr", world, size)])) for i in range(3)]

    one = parts("latent-strategy", 1)
    unseen, unlike, alike, others = transfer(store)
    risen, rival = alike + others, "one random prompt"
    return [
        "**What it says.** It is the number of *kinds* of problems that matters, not of problems. Figures are dopr's where no arm is named.", "",
        f"* One shared skill (`shared-skill`): one problem brings {after('shared-skill', 1)}, two {after('shared-skill', 2)}, eight "
        f"{after('shared-skill', 8)}, all 2,000 {after('shared-skill', 2000)}.",
        f"* Sixteen separate skills (`latent-strategy`): one problem teaches its own skill ({one[0]:.0%}) and nothing else: the others go from "
        f"{one[2]:.0%} to {one[1]:.0%}. Accuracy on the whole world grows with the skills covered: {after('latent-strategy', 8)} with eight problems, {after('latent-strategy', 16)} with one of "
        f"each skill (N = 16), {after('latent-strategy', 32)} with two of each, {after('latent-strategy', 2000)} with all 2,000.",
        f"* An uneven mixture (`mixed`): {after('mixed', 1)}, {after('mixed', 8)}, {after('mixed', 32)} (N = 32, every skill once) and {after('mixed', 2000)}.",
        f"* Learning one skill lowers the others on average, and raises a few without a problem of their own: {risen} of {unseen} unseen skills of latent-strategy rose by more than "
        f"30 points, {alike} of them with the right strategy of a skill that was trained (without it {others} of {unlike} did). So T5's assumption of no transfer is broken in both directions here.",
        f"* Beside {rival} with three times the rollouts: {after('latent-strategy', 32)} against {after('latent-strategy', 32, rival)} on 32 problems of latent-strategy and "
        f"{after('mixed', 32)} against {after('mixed', 32, rival)} of mixed. On a single problem of shared-skill dopr has {after('shared-skill', 1)} where {rival} has "
        f"{after('shared-skill', 1, rival)}.", "",
        "So \"surprisingly few\" holds for problems and fails for kinds of problems; theorem T4 marks where (docs/theory.md).", "",
    ]  # fmt: skip


def transfer(store: dict[str, Any]) -> tuple[int, int, int, int]:
    """Unseen skills of latent-strategy over all runs; those whose right strategy no trained skill shares; and of the other and of
    these how many rose by more than 30 points.
    """
    right = {skill.name: getattr(skill, "right", None) for skill in world_skills("latent-strategy")}
    unseen = unlike = alike = others = 0
    for run in (r for arm in ARMS for size in SIZES for r in runs_of(store, arm, "latent-strategy", size)):
        trained = {right[name] for name in run["skills"]}
        for name in set(right) - set(run["skills"]):
            rose = run["by_skill"][name] - run["by_skill_before"][name] > 0.3
            unseen += 1
            unlike += right[name] not in trained
            alike += rose and right[name] in trained
            others += rose and right[name] not in trained
    return unseen, unlike, alike, others


def draw(store: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dopr"
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, len(WORLDS), figsize=(5.2 * len(WORLDS), 4))
    for ax, world in zip(axes, WORLDS, strict=True):
        marks = t4_marks(world)
        first = [runs_of(store, "dopr", world, size) for size in SIZES]
        ax.plot(
            SIZES,
            [np.mean([allowed(r, world) for r in results]) for results in first],
            "k-",
            lw=1,
            label="ceiling without transfer",
        )
        ax.axhline(
            np.mean([r["before"] for results in first for r in results]),
            color="grey",
            lw=0.8,
            ls="--",
            label="base policy",
        )
        for colour, arm in enumerate(ARMS):
            values = np.array([[r["after"] for r in runs_of(store, arm, world, size)] for size in SIZES])
            ax.plot(SIZES, values.mean(axis=1), "o-", ms=4, color=f"C{colour}", label=arm)
            ax.fill_between(SIZES, values.min(axis=1), values.max(axis=1), color=f"C{colour}", alpha=0.15, lw=0)
        for name, style in (("block", "-"), ("rarest", "--"), ("every", ":")):
            text = {"block": "every skill dealt", "rarest": "T4, rarest skill", "every": "T4, all skills"}[name]
            ax.axvline(marks[name], color="C3", lw=0.9, ls=style, label=f"{text}: {marks[name]:.0f}")
        ax.set(
            xscale="log",
            xlabel="training problems N",
            ylabel="accuracy on the whole world",
            title=world,
            ylim=(0, 1.02),
        )
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=7)
    fig.tight_layout()
    fig.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arm", action="append", choices=list(ARMS))
    parser.add_argument("--summarise", action="store_true")
    options = parser.parse_args()
    if not options.summarise:
        run_missing(options.arm or list(ARMS))
    summarise()


if __name__ == "__main__":
    main()
