"""dopr and its controls where nothing was tuned: worlds and base policies drawn at random.

    python benchmarks/drawn_worlds/run.py                what is missing, two runs at a time (half an hour on two cores)
    python benchmarks/drawn_worlds/run.py --arm ARM --again    this arm's runs anew, in the place of the stored ones
    python benchmarks/drawn_worlds/run.py --summarise    only the page again, from docs/results/drawn_worlds.json

Three families of skills with a policy each, four worlds a family (draw.py). Every arm has one setting for all of them: the one that the
suite's five worlds chose most often. One seed per world; intervals are over worlds. A run is stored as it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from draw import ROOT, SLIPS, World, make_policy, world, write_problems

sys.path.insert(0, str(ROOT / "benchmarks"))
from suite import commit

from dopr.compare.results import CURVE, read_result

STORE = ROOT / "docs" / "results" / "drawn_worlds.json"
FAMILIES, WORLDS = range(len(SLIPS)), range(4)
ROLLOUTS = 600  # rollouts at which methods with one prompt per round are compared


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A method with the setting that the suite chose most often."""

    strategy: str
    rollouts: int
    learning_rate: float
    prompts_per_round: int | None = None
    option: dict[str, bool] = field(default_factory=dict)


ARMS = {
    "dopr": Arm(strategy="dopr", rollouts=ROLLOUTS, learning_rate=2e-4),
    "dopr, prompt at random": Arm(
        strategy="dopr", rollouts=ROLLOUTS, learning_rate=2e-4, option={"random": True}
    ),
    "dopr without search": Arm(strategy="dopr", rollouts=ROLLOUTS, learning_rate=1e-4, option={"search": False}),
    "one random prompt": Arm(strategy="random-one", rollouts=1500, learning_rate=1e-4),
    "batch GRPO 4 x 8": Arm(strategy="uniform", rollouts=4000, learning_rate=2e-4, prompts_per_round=4),
    "DAPO filter 8 x 8": Arm(strategy="dapo", rollouts=4000, learning_rate=5.7e-4, prompts_per_round=8),
    "batch GRPO 64 x 8": Arm(strategy="uniform", rollouts=12000, learning_rate=4e-4, prompts_per_round=64),
}  # fmt: skip


def load_store() -> dict[str, Any]:
    return json.loads(STORE.read_text()) if STORE.exists() else {}


def save_store(store: dict[str, Any]) -> None:
    lines = (f"{json.dumps(key)}: {json.dumps(run, separators=(',', ':'))}" for key, run in sorted(store.items()))
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    STORE.with_suffix(".tmp").write_text(text)
    STORE.with_suffix(".tmp").replace(STORE)


def prepare_policy(number: int, work: Path) -> None:
    """The policy of a family, made once."""
    if not (work / f"policy-{number}").exists():
        make_policy(number, work / f"policy-{number}.part")
        (work / f"policy-{number}.part").rename(work / f"policy-{number}")


def run_job(label: str, drawn: World, work: Path) -> dict[str, Any]:
    """One run: its curve, and what decided it."""
    from dopr.quiet import quiet_libraries

    quiet_libraries()
    from dopr.config import TrainSettings
    from dopr.train.prepare import prepare
    from dopr.train.run import run

    number, index = map(int, drawn.name.split("."))
    given = {key: value for key, value in asdict(ARMS[label]).items() if value is not None}
    directory = Path(tempfile.mkdtemp(prefix="dopr-drawn-"))
    settings = TrainSettings(
        **{key: value for key, value in given.items() if key != "rollouts"}, budget=f"rollouts={given['rollouts']}",
        model=str(work / f"policy-{number}"), data=str(work / drawn.name / "train.jsonl"),
        eval_data=str(work / drawn.name / "test.jsonl"), eval_problems=256, chat=False, reward=("world",),
        max_completion_length=10, evaluations=25, seed=1 + index, probe=0, warn_constant=0, output=str(directory / "run"),
    )  # fmt: skip
    run(prepare(settings), progress=lambda event, share: None, say=lambda text: None)
    result = read_result(directory / "run", settings.seed).as_dict()
    shutil.rmtree(directory)
    return {key: result[key] for key in ("seed", "curve", "informative", "entropy", "updates")} | {"commit": commit()}


def run_missing(work: Path, only: list[str], again: bool) -> None:
    drawn = [world(number, index) for number in FAMILIES for index in WORLDS]
    for some in drawn:
        write_problems(some, work / some.name)
    store = load_store()
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        list(pool.map(prepare_policy, FAMILIES, [work] * len(FAMILIES)))
        runs = {
            pool.submit(run_job, label, some, work): f"{some.name} | {label}"
            for some in drawn
            for label in only
            if again or f"{some.name} | {label}" not in store
        }
        for done in as_completed(runs):
            store[runs[done]] = done.result()
            save_store(store)
            curve = [row[CURVE.index("accuracy")] for row in store[runs[done]]["curve"]]
            print(f"{runs[done]}: {curve[0]:.3f} -> {curve[-1]:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "dopr" / "drawn_worlds")
    parser.add_argument("--arm", action="append", choices=list(ARMS), help="run this one alone (repeatable)")
    parser.add_argument("--again", action="store_true", help="run stored runs anew, as after a change of the rule")
    parser.add_argument("--summarise", action="store_true", help="only the page again, from the stored runs")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if not options.summarise:
        options.work.mkdir(parents=True, exist_ok=True)
        run_missing(options.work, options.arm or list(ARMS), options.again)
    from page import write

    write(load_store())


if __name__ == "__main__":
    main()
