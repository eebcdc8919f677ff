"""The benchmark suite: dopr, its baselines and its ablations on the five packaged worlds, on top of `dopr compare`.

    python benchmarks/suite.py                       run what is missing, then write the page (hours on two cores)
    python benchmarks/suite.py --world mixed         one world; --arm 'dopr*' those arms (labels, or arms as dopr compare takes them)
    python benchmarks/suite.py --presets             also every other preset of dopr
    python benchmarks/suite.py --summarise           only the page again, from docs/results/suite.json
    python benchmarks/suite.py --estimate            only what there is to run, and roughly how long it takes

Every world is one comparison directory below --work, so an interrupted suite goes on where it stopped. Runs that were made by other
sources of dopr are refused there: a changed rule needs a new --work, and with --arm only what it changes has to run again. What is
finished is kept in docs/results/suite.json, arm by arm, with the commit that ran it. From there come docs/results/suite.{md,svg} and
the figures that `dopr train` prints beside its own (src/dopr/assets/baselines.json).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import dopr
from dopr.compare.arms import make_arms, tuning_jobs
from dopr.compare.results import RunResult
from dopr.compare.run import RESULTS, compare
from dopr.config import CompareSettings
from dopr.selection import STRATEGIES
from dopr.tasks.worlds import WORLD_NAMES

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "docs" / "results" / "suite.json"
# Rollouts with one prompt per update, with batches of 4 to 32 prompts, with 64, and of ablations; a world that is soon mastered
# needs fewer.
BUDGETS = {name: (800, 2000, 6400, 300) if name == "shared-skill" else (1500, 4000, 12000, 300) for name in WORLD_NAMES}
SHORT = 3
SOURCES = ("selection", "train", "tasks")  # of src/dopr: they decide what a run does
SEEDS = 5
COMMON: dict[str, Any] = {"evaluations": 25, "eval_problems": 256, "warn_constant": 0, "probe": 0, "seeds": SEEDS}
# Measured with two runs side by side on two cores: seconds per rollout at the four sizes, and per run.
PER_ROLLOUT, PER_RUN = (0.02, 0.0024, 0.0019, 0.025), 5.0


@dataclass(frozen=True, kw_only=True)
class SuiteArm:
    """One row of the tables."""

    label: str
    arm: str  # for dopr compare --strategies, without its budget
    size: int = 0  # position of its budget in BUDGETS
    tuning_seeds: int = 2
    group: str = "baseline"  # or ablation, or preset: run only with --presets

    def on(self, world: str) -> str:
        """With its budget on a world, where that is not the common one."""
        return self.arm + (f"+budget=rollouts={BUDGETS[world][self.size]}" if self.size else "")


BATCH, TUNED, ONE, OURS = "batch GRPO 64 x 8", "batch GRPO, batch size tuned", "one random prompt", "dopr"
WHOLE = "dopr whole"  # with a rate tuned at the ablations' smaller budget, as theirs are
ARMS = (
    SuiteArm(label=OURS, arm="dopr"),
    SuiteArm(label=BATCH, arm="uniform+prompts_per_round=64", size=2),
    SuiteArm(label=TUNED, arm="uniform+prompts_per_round=4|8|16|32", size=1),
    SuiteArm(label="DAPO filter 8 x 8", arm="dapo+prompts_per_round=8", size=1),
    SuiteArm(label="GRESO 8 x 8", arm="greso+prompts_per_round=8", size=1),
    SuiteArm(label="MoPPS", arm="mopps"),
    SuiteArm(label=ONE, arm="random-one"),
    SuiteArm(label="one fixed prompt", arm="one-shot"),
    *(
        SuiteArm(label=label, arm=arm, group="ablation", tuning_seeds=1, size=1 if "prompts_per_round" in arm else SHORT)
        for label, arm in (
            (WHOLE, "dopr"),
            ("dopr, prompt at random", "dopr+option.random=true"),
            ("dopr without search", "dopr+option.search=false"),
            ("dopr, searches of one group at most", "dopr+option.search_depth=1"),
            ("dopr, searches of the policy alone", "dopr+option.base_search=false"),
            ("dopr without replay", "dopr+replay=0"),
            ("dopr, solved prompts chosen too", "dopr+option.fresh=false"),
            ("dopr, successes replayed whole", "dopr+option.contrast=false"),
            ("dopr without sequential rollouts and search", "dopr+chunk=8+wrong_cap=8+right_cap=8"),
            ("dopr, prompt at random, without sequential rollouts and search", "dopr+chunk=8+wrong_cap=8+right_cap=8+option.random=true"),
            ("dopr without replay updates", "dopr+replay_updates=0"),
            ("dopr without features", "dopr+features=none"),
            ("dopr without the regression on features", "dopr+option.linear=false"),
            ("dopr with known skills", "dopr+features=category"),
            ("one random prompt + sequential + replay", "random-one+chunk=2+right_cap=2+replay=8+replay_updates=2"),
            ("batch GRPO 8 x 8 with dopr's other levers", "dopr+option.random=true+prompts_per_round=8+chunk=8+right_cap=8"),
        )
    ),
    *(
        SuiteArm(
            label=f"{name} (told the skills)" if cls.needs else name, arm=name, group="preset", tuning_seeds=1,
            size=int(cls.default_prompts_per_round >= 4),
        )
        for name, cls in STRATEGIES.items()
        if name not in ("dopr", "uniform", "dapo", "greso", "mopps", "random-one", "one-shot")
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A finished arm of a world."""

    arm: str  # as dopr compare took it
    chosen: str  # the alternative that won, else the same
    rate: float
    edge: bool
    tried: dict[str, dict[str, float]]  # per alternative and learning rate, mean accuracy over the tuning runs
    tuning_seeds: int
    commit: str
    runs: list[RunResult]


Results = dict[str, dict[str, Stored]]  # world -> label -> arm


def settings_of(arm: SuiteArm, world: str, work: Path) -> CompareSettings:
    """The comparison that an arm of a world is part of."""
    return CompareSettings(
        **COMMON, budget=f"rollouts={BUDGETS[world][0]}", world=world, strategies=(arm.on(world),),
        tuning_seeds=arm.tuning_seeds, jobs=2, output=str(work / world),
    )  # fmt: skip


def command_of(arm: SuiteArm, world: str, tuning_seeds: int) -> str:
    """The command that repeats a row."""
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in COMMON.items())
    return (
        f"dopr compare --world {world} --strategies '{arm.on(world)}' --budget rollouts={BUDGETS[world][0]} "
        f"{flags} --tuning-seeds {tuning_seeds} --output DIR"
    )


def load() -> Results:
    """What is stored; empty before the first arm is finished."""
    stored = json.loads(STORE.read_text()) if STORE.exists() else {}
    return {
        world: {
            label: Stored(**{k: v for k, v in kept.items() if k != "runs"}, runs=[_unpacked(r) for r in kept["runs"]])
            for label, kept in arms.items()
        }
        for world, arms in stored.items()
    }


def save(results: Results) -> None:
    """One line per run, so that a difference can be read."""
    worlds = []
    for world, arms in sorted(results.items()):
        lines = []
        for label in (arm.label for arm in ARMS if arm.label in arms):
            kept = arms[label]
            about = {k: v for k, v in vars(kept).items() if k != "runs"}
            runs = ",\n".join(json.dumps(_packed(run), separators=(",", ":")) for run in kept.runs)
            lines.append(f'{json.dumps(label)}: {{{json.dumps(about)[1:-1]}, "runs": [\n{runs}]}}')
        worlds.append(f"{json.dumps(world)}: {{\n" + ",\n".join(lines) + "}")
    STORE.write_text("{\n" + ",\n".join(worlds) + "\n}\n")


def _packed(run: RunResult) -> dict[str, Any]:
    """With one sample per held-out problem, its verdict is one bit."""
    packed = run.as_dict()
    return packed | {"correct": "".join(str(int(c)) for c in packed["correct"])}


def _unpacked(stored: dict[str, Any]) -> RunResult:
    return RunResult.from_dict(stored | {"correct": [int(bit) for bit in stored["correct"]]})


def source_hash() -> str:
    """Fingerprint of everything that decides what a run does."""
    digest = hashlib.sha256()
    for part in SOURCES:
        for file in sorted((ROOT / "src" / "dopr" / part).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def check_sources(work: Path, world: str) -> None:
    """Refuse to go on with runs that another rule made, and to run another checkout's rule."""
    package = Path(dopr.__file__).resolve().parent
    if package != ROOT / "src" / "dopr":
        raise SystemExit(f"dopr is imported from {package}, not from this checkout. Set PYTHONPATH={ROOT / 'src'}.")
    marker = work / f"{world}.sources"
    if not marker.exists() and not (work / world).exists():
        work.mkdir(parents=True, exist_ok=True)
        marker.write_text(source_hash() + "\n")
    if not marker.exists() or marker.read_text().strip() != source_hash():
        raise SystemExit(
            f"{work / world} holds runs of other sources of dopr (selection, train or tasks have changed since). Give a new --work; if the "
            f"change makes no difference to any run, write {source_hash()} into {marker}."
        )


def commit() -> str:
    """Short hash of the checkout, with a plus if what decides a run has changes."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "--", *(f"src/dopr/{part}" for part in SOURCES)) else ""
    )


def run_world(world: str, arms: list[SuiteArm], work: Path) -> None:
    """Run what is missing of the arms, and store them."""
    check_sources(work, world)
    for tuning_seeds in sorted({arm.tuning_seeds for arm in arms}, reverse=True):
        some = [arm for arm in arms if arm.tuning_seeds == tuning_seeds]
        settings = replace(settings_of(some[0], world, work), strategies=tuple(arm.on(world) for arm in some))
        print(f"{world}: {', '.join(arm.label for arm in some)}", flush=True)
        compare(settings, command="python benchmarks/suite.py", say=lambda text: print(text, flush=True))
        found = json.loads((work / world / RESULTS).read_text())
        results = load()  # read again: another world may have been stored meanwhile
        for arm in some:
            chosen = found["meta"]["rates"][arm.on(world)]
            results.setdefault(world, {})[arm.label] = Stored(
                arm=arm.on(world), chosen=chosen["arm"], rate=chosen["rate"], edge=chosen["edge"], tried=chosen["tried"],
                tuning_seeds=tuning_seeds, commit=commit(), runs=[RunResult.from_dict(r) for r in found["runs"][arm.on(world)]],
            )  # fmt: skip
        save(results)


def estimate(world: str, arms: list[SuiteArm], work: Path) -> float:
    """Seconds that the missing runs take, two at a time; prints them by arm."""
    total = 0.0
    for arm in arms:
        settings = settings_of(arm, world, work)
        made, _ = make_arms(settings)
        slugs = [job.slug for job in tuning_jobs(made, settings)]
        missing = sum(not (work / world / "runs" / slug).exists() for slug in slugs)
        missing += 0 if arm.label in load().get(world, {}) else SEEDS
        seconds = missing / 2 * (PER_RUN + PER_ROLLOUT[arm.size] * BUDGETS[world][arm.size])
        print(f"  {missing:3d} runs, {seconds / 60:5.1f} min  {arm.label}")
        total += seconds
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", action="append", choices=WORLD_NAMES)
    parser.add_argument(
        "--arm", action="append", metavar="PATTERN", help="label or arm, * matches anything; repeatable"
    )
    parser.add_argument(
        "--work", type=Path, default=Path.home() / ".cache" / "dopr" / "suite", help="where the runs are kept"
    )
    parser.add_argument("--presets", action="store_true", help="also the presets that are no baseline here")
    parser.add_argument("--summarise", action="store_true")
    parser.add_argument("--estimate", action="store_true")
    options = parser.parse_args()
    patterns = options.arm or ["*"]
    groups = ("baseline", "ablation", *(["preset"] if options.presets else []))  # what the claims need comes first
    among = [arm for arm in ARMS if arm.group in groups]
    arms = [arm for arm in among if any(fnmatch(arm.label, p) or fnmatch(arm.arm, p) for p in patterns)]
    if not arms:
        parser.error(f"no arm is called like {', '.join(patterns)}; there are: {'; '.join(arm.label for arm in among)}")
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    worlds = options.world or list(WORLD_NAMES)
    if options.estimate:
        total = 0.0
        for world in worlds:
            print(world)
            total += estimate(world, arms, options.work)
        print(f"about {total / 60:.0f} min on two cores")
        return
    if not options.summarise:
        for group in groups:
            for world in worlds:
                run_world(world, [arm for arm in arms if arm.group == group], options.work)
    from suite_page import write

    write(load())


if __name__ == "__main__":
    main()
