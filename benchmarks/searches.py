"""When should a search for a first success be given up? The rule beside fixed depths, where only the chances of draws are given.

    python benchmarks/searches.py

A prompt of one of five clusters fails or succeeds draw by draw, with the chances of a kind of task, nothing is learned from it, and 240
rollouts are spent, as on SmolLM2. What counts is how many groups find a success. Writes docs/results/searches.md; a minute.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dopr.selection.dopr_options import DoprOptions
from dopr.selection.dopr_rule import Dopr
from dopr.selection.search_record import SearchRecord
from dopr.selection.settings import SelectorConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "searches.md"
ROLLOUTS, SEEDS, CLUSTERS, PROMPTS = 240, 200, 5, 100


def steps(*chances: float) -> NDArray[np.float64]:
    """Chances of draws 1-2, 3-4, 5-8, 9-12, 13-16 and 17-24."""
    return np.repeat(chances, [2, 2, 4, 4, 4, 8])


#: Kind of task: chance of each draw by cluster. Draws 1-16 of the first and 3-12 of the next two are as in runs with the rule before
#: this one (docs/log.md, 2026-11-27); what those have at draws 1-2, of prompts that need no search too, and deeper, is assumed, as are the rest.
TASKS = {
    "SmolLM2's multiples": [steps(0.13, 0.10, 0.034, 0.038, 0.032, 0.03)] * 5,
    "the world mixed": [steps(0.10, 0.17, 0.34, 0.12, 0.06, 0.0)] * 5,
    "the world mostly-hopeless": [steps(0.05, 0.19, 0.46, 0.38, 0.30, 0.30)] * 5,
    "deep draws pay more": [steps(0.02, 0.03, 0.05, 0.05, 0.06, 0.06)] * 5,
    "one of 30 answers, all as likely": [1 / (30 - np.arange(24))] * 5,
    "one in ten throughout": [np.full(24, 0.1)] * 5,
    "two clusters of five never": [steps(0.05, 0.19, 0.46, 0.38, 0.30, 0.30)] * 3 + [np.zeros(24)] * 2,
}


class AsDeepAsFound(SearchRecord):
    """The rule until 2026-11-27: from once to three times the cap, by the share of searches that found something."""

    def goes_on(self, cluster: int, failures: int, deepest: int) -> bool:
        found = self.rates(np.array([cluster]))[0]
        return bool(failures < self.cap * (1 + 2 * found))


class UpTo(SearchRecord):
    """Always as deep."""

    depth = 0

    def goes_on(self, cluster: int, failures: int, deepest: int) -> bool:
        return failures < self.depth


RULES: dict[str, type[SearchRecord]] = {
    "dopr": SearchRecord,
    "the rule before": AsDeepAsFound,
    **{f"up to {n}": type(f"UpTo{n}", (UpTo,), {"depth": n}) for n in (4, 8, 24)},
}


def successes(rule: type[SearchRecord], chances: list[NDArray[np.float64]], seed: int) -> float:
    """Groups with a success in ``ROLLOUTS`` rollouts."""
    rng, ids = np.random.default_rng(seed), [str(i) for i in range(PROMPTS)]
    selector = Dopr(ids, SelectorConfig(chunk=2, seed=seed), DoprOptions(clusters=CLUSTERS))
    selector._searches = rule(CLUSTERS, selector.rollouts.wrong_cap)
    selector.set_features(None, np.arange(PROMPTS, dtype=np.int32) % CLUSTERS)
    spent = found = 0
    while spent < ROLLOUTS:
        prompt = int(rng.integers(PROMPTS))
        rewards: list[float] = []
        more = 2
        while more:
            rewards += [float(rng.random() < chances[prompt % CLUSTERS][len(rewards) + i]) for i in range(more)]
            review = selector.review(ids[prompt], rewards)
            more = review.rollouts if review.action == "more" else 0
        selector.tell(ids[prompt], rewards)
        selector._unlocked[:] = False  # nothing is learned: the next group begins as this one did
        spent, found = spent + len(rewards), found + any(rewards)
    return found * ROLLOUTS / spent


def main() -> None:
    rows = []
    for name, chances in TASKS.items():
        cells = []
        for rule in RULES.values():
            counts = np.array([successes(rule, chances, seed) for seed in range(SEEDS)])
            cells.append(f"{counts.mean():.1f} ± {1.96 * counts.std(ddof=1) / SEEDS**0.5:.1f}")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)
    head = f"| chances of draws | {' | '.join(RULES)} |\n|---|{'---|' * len(RULES)}"
    PAGE.write_text(
        "# When a search is given up\n\nMade by `python benchmarks/searches.py`; do not edit. Groups with a success in "
        f"{ROLLOUTS} rollouts, mean and 95 % interval over {SEEDS} seeds, where the chances of draws are given (partly as in runs, partly assumed: see the script) and nothing is learned.\n\n"
        f"{head}\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
