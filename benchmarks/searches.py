"""When should a search for a first success be given up? The rule beside fixed depths, where only the chances of draws are given.

    python benchmarks/searches.py

A prompt of one of five clusters fails or succeeds draw by draw, with the chances of a kind of task, nothing is learned from it, and 240
rollouts are spent, as on SmolLM2. Two things count: how many groups find a success, and after how many rollouts a cluster that is locked
has its first, since that one opens the cluster. Writes docs/results/searches.md; two minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dopr.selection.dopr_options import DoprOptions
from dopr.selection.dopr_rule import Dopr
from dopr.selection.search_record import SearchRecord
from dopr.selection.settings import SelectorConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "searches.md"
ROLLOUTS, LONGEST, SEEDS, CLUSTERS, PROMPTS = 240, 1000, 200, 5, 100


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


LOCKED = steps(0.01, 0.02, 0.08, 0.10, 0.05, 0.03)  # assumed: as late as the first answers below zero come
#: The last cluster is locked, in the last row all are.
FIRST = {
    "one locked cluster, others .5": [np.full(24, 0.5)] * 4 + [LOCKED],
    "one locked cluster, others .2": [np.full(24, 0.2)] * 4 + [LOCKED],
    "one of 30 answers, others .5": [np.full(24, 0.5)] * 4 + [1 / (30 - np.arange(24))],
    "one in 33 throughout, others .5": [np.full(24, 0.5)] * 4 + [np.full(24, 0.03)],
    "all locked": [LOCKED] * 5,
}


class FromHalf(SearchRecord):
    """The rule of 2026-11-27: as it is now, but from half of the cap on."""

    def goes_on(self, cluster: int, failures: int, deepest: int) -> bool:
        left = range(failures, deepest)
        if not left or 2 * failures < self.cap:
            return bool(left)
        return self.promised(cluster, left) > max(0.75 * self.usual, 1 / (3 * self.cap))


class AsDeepAsFound(SearchRecord):
    """The rule before that: from once to three times the cap, by the share of searches that found something."""

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
    "of 2026-11-27": FromHalf,
    "before": AsDeepAsFound,
    **{f"up to {n}": type(f"UpTo{n}", (UpTo,), {"depth": n}) for n in (4, 8, 24)},
}


def groups(
    rule: type[SearchRecord], chances: list[NDArray[np.float64]], seed: int
) -> Iterator[tuple[int, list[float]]]:
    """Cluster and rewards of one group after the other, without end."""
    rng, ids = np.random.default_rng(seed), [str(i) for i in range(PROMPTS)]
    selector = Dopr(ids, SelectorConfig(chunk=2, seed=seed), DoprOptions(clusters=CLUSTERS))
    selector._searches = rule(CLUSTERS, selector.rollouts.wrong_cap)
    selector.set_features(None, np.arange(PROMPTS, dtype=np.int32) % CLUSTERS)
    while True:
        prompt = int(rng.integers(PROMPTS))
        rewards: list[float] = []
        more = 2
        while more:
            rewards += [float(rng.random() < chances[prompt % CLUSTERS][len(rewards) + i]) for i in range(more)]
            review = selector.review(ids[prompt], rewards)
            more = review.rollouts if review.action == "more" else 0
        selector.tell(ids[prompt], rewards)
        selector._unlocked[:] = False  # nothing is learned: the next group begins as this one did
        yield prompt % CLUSTERS, rewards


def successes(rule: type[SearchRecord], chances: list[NDArray[np.float64]], seed: int) -> float:
    """Groups with a success in ``ROLLOUTS`` rollouts."""
    spent = found = 0
    for _, rewards in groups(rule, chances, seed):
        spent, found = spent + len(rewards), found + any(rewards)
        if spent >= ROLLOUTS:
            break
    return found * ROLLOUTS / spent


def first(rule: type[SearchRecord], chances: list[NDArray[np.float64]], seed: int) -> float:
    """Rollouts until the last cluster has its first success, or any where all are alike; at most ``LONGEST``."""
    anywhere = all(np.array_equal(chances[-1], other) for other in chances)
    spent = 0
    for cluster, rewards in groups(rule, chances, seed):
        spent += len(rewards)
        if spent >= LONGEST or (any(rewards) and (anywhere or cluster == CLUSTERS - 1)):
            break
    return min(spent, LONGEST)


def table(tasks: dict[str, list[NDArray[np.float64]]], measure: Callable[..., float]) -> str:
    """A row per task, a column per rule."""
    lines = [f"| chances of draws | {' | '.join(RULES)} |", f"|---|{'---|' * len(RULES)}"]
    for name, chances in tasks.items():
        cells = []
        for rule in RULES.values():
            found = np.array([measure(rule, chances, seed) for seed in range(SEEDS)])
            cells.append(f"{found.mean():.1f} ± {1.96 * found.std(ddof=1) / SEEDS**0.5:.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    PAGE.write_text(
        "# When a search is given up\n\nMade by `python benchmarks/searches.py`; do not edit. The chances of draws are given (partly as in runs, "
        f"partly assumed: see the script) and nothing is learned. Means and 95 % intervals over {SEEDS} seeds.\n\n"
        f"## Groups with a success in {ROLLOUTS} rollouts\n\n{table(TASKS, successes)}\n\n"
        f"## Rollouts until a locked cluster of five has its first success\n\nAt most {LONGEST:,}; fewer are better.\n\n{table(FIRST, first)}\n"
    )


if __name__ == "__main__":
    main()
