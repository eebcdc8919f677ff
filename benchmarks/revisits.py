"""How often does a strategy see a prompt again, and how much of what it rolled out does it drop?

    python benchmarks/revisits.py

Methods that judge a prompt by its own past need to see it twice. Here prompts succeed with chances that are given and nothing is learned, so
only the choice counts; rounds, refills and the surplus beyond a batch are as in the trainer (`dopr.train.round`). Strategies that judge by a
category or a difficulty, and dopr, which shares evidence between prompts, are left out. Writes docs/results/revisits.md; seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dopr.selection.registry import STRATEGIES, make_selector
from dopr.selection.selector import Selector
from dopr.selection.settings import SelectorConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "revisits.md"
PROMPTS, ROLLOUTS, SEEDS = 2000, 3000, 5
POOLS = {  # chances of success: Beta(a, b) over prompts
    "most fail, Beta(.5, 2)": (0.5, 2.0),
    "even, Beta(1, 1)": (1.0, 1.0),
    "most succeed, Beta(2, .5)": (2.0, 0.5),
}
LEFT_OUT = {"dopr", "one-shot"}


def spend(selector: Selector, draw: Callable[[int, int], list[float]]) -> dict[str, int]:
    """Rollouts, groups, groups on a prompt seen before, and rollouts of surplus groups, until ``ROLLOUTS`` are spent."""
    count = dict.fromkeys(("rollouts", "groups", "seen before", "surplus"), 0)
    seen: set[int] = set()
    while count["rollouts"] < ROLLOUTS:
        picks = selector.ask()
        wanted, done, kept = len(picks), [], 0
        for refill in range(selector.max_refills + 1):
            for pick in picks:
                rewards = draw(pick.row, pick.rollouts)
                while (verdict := selector.review(pick.prompt_id, rewards)).action == "more":
                    rewards += draw(pick.row, verdict.rollouts)
                keep = verdict.action == "keep"
                count["surplus"] += len(rewards) * (keep and kept >= wanted)
                kept += keep
                done.append((pick, rewards))
            if kept >= wanted or refill == selector.max_refills:
                break
            picks = selector.ask(exclude={pick.row for pick, _ in done})
        for pick, rewards in done:
            selector.tell(pick.prompt_id, rewards)
            count["rollouts"] += len(rewards)
            count["groups"] += 1
            count["seen before"] += pick.row in seen
        seen |= {pick.row for pick, _ in done}
    return count


def run(name: str, a: float, b: float, seed: int) -> dict[str, int]:
    """One strategy on one pool."""
    rng = np.random.default_rng([seed, 0x4E])
    chances = rng.beta(a, b, PROMPTS)
    prompts_per_round = STRATEGIES[name].default_prompts_per_round
    selector = make_selector(name, range(PROMPTS), SelectorConfig(seed=seed, prompts_per_round=prompts_per_round))
    return spend(selector, lambda row, n: (rng.random(n) < chances[row]).astype(float).tolist())


def main() -> None:
    lines = [
        f"| strategy | {' | '.join(f'{pool}: seen before | surplus' for pool in POOLS)} |",
        "|---|" + "---|---|" * len(POOLS),
    ]
    for name, strategy in STRATEGIES.items():
        if name in LEFT_OUT or strategy.needs:
            continue
        cells = []
        for a, b in POOLS.values():
            runs = [run(name, a, b, seed) for seed in range(SEEDS)]
            total = {what: sum(count[what] for count in runs) for what in runs[0]}
            cells.append(f"{total['seen before'] / SEEDS:.0f} of {total['groups'] / SEEDS:.0f}")
            cells.append(f"{total['surplus'] / total['rollouts']:.0%}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    PAGE.write_text(
        f"# Prompts seen again, and surplus\n\nMade by `python benchmarks/revisits.py`; do not edit. {PROMPTS:,} prompts, {ROLLOUTS:,} rollouts and "
        f"whole rounds, means of {SEEDS} seeds, each strategy at its own defaults; the chances of success are given and nothing is learned. *Seen "
        "before*: groups on a prompt that an earlier round had rolled out. *Surplus*: the share of rollouts in informative groups that an update had no "
        f"room for.\n\n{table}\n"
    )
    print(table)


if __name__ == "__main__":
    main()
