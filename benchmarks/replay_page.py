"""Every strategy on a recorded trace, as a page: docs/results/replay.{json,md,svg}.

    python benchmarks/replay_page.py TRACE              replay (a minute), then write the page
    python benchmarks/replay_page.py --summarise        only the page, from the stored figures

TRACE is a run directory or a published trace {id: [accuracy per visit]}; the committed page is of the trace that
1-shot RLVR published for Qwen2.5-Math-1.5B over 500 GRPO steps, half of its 1,209 prompts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
STORE, PAGE, FIGURE = (RESULTS / f"replay.{suffix}" for suffix in ("json", "md", "svg"))
SEEDS = 10


def write_page(stored: dict[str, Any]) -> None:
    at_random, at_best = stored["informative_at_random"], stored["informative_at_best"]
    lines = [
        "# Strategies on a recorded trace", "",
        "Made by `python benchmarks/replay_page.py TRACE`; do not edit. Raw figures: [replay.json](replay.json).", "",
        f"{Path(stored['trace']).name}, groups of {stored['group_size']}, {stored['budget']}, {stored['seeds']} seeds; intervals are "
        "95 % Student's t over seeds. The recorded policy improves as it did, whatever is picked: this shows who finds informative "
        "groups and predicts success, **not who teaches most** ([the suite](suite.md) measures that). The strategies see "
        "ids and rewards only: no hidden states, so dopr's clusters are off, and nothing can be searched; its sequential rollouts (two at a time, up to 8 on a prompt "
        "that keeps failing) count in full. Difficulty and category for sec, dump and adarft come from each prompt's first "
        "recorded visit, free of charge: these three know more than the others.", "",
        f"Ceiling: of whole groups drawn from this record {at_random:.0%} are informative at random and {at_best:.0%} at best, so with whole "
        f"groups no selector gains more than {at_best / at_random:.2f}x over one random prompt here.", "",
        "![reliability of the predicted success](replay.svg)", "",
        "| strategy | informative groups per 100 rollouts | x random-one | mixed | all wrong | all right | prompts seen | Brier "
        "| Brier of the running mean | calibration error |", "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in stored["strategies"]:
        g, h = row["gain"], row["per_hundred"]
        same = row["strategy"] != "random-one" and g["low"] <= 1 <= g["high"]
        numbers = [row["brier"], row["brier_pooled"], row["calibration_error"]]
        lines.append(
            f"| {row['strategy']} | {h['estimate']:.1f} [{h['low']:.1f}, {h['high']:.1f}] | {g['estimate']:.2f} [{g['low']:.2f}, "
            f"{g['high']:.2f}]{', no difference shown' if same else ''} | {row['informative']:.0%} | {row['all_wrong']:.0%} | "
            f"{row['all_right']:.0%} | {row['coverage']:.0%} | "
            + " | ".join("" if v is None else f"{v:.3f}" for v in numbers) + " |"
        )  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n")


def draw(stored: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dopr"
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots(figsize=(5.6, 4.4))
    ax.plot([0, 1], [0, 1], color="grey", lw=0.8, ls="--")
    for row in stored["strategies"]:
        bins = np.array(row["reliability"])
        bins = bins[bins[:, 0] >= 200]  # fewer rollouts than that say little
        if row["brier"] is not None and len(bins) > 1:
            ax.plot(bins[:, 1] / bins[:, 0], bins[:, 2] / bins[:, 0], marker="o", ms=3.5, lw=1.4, label=row["strategy"])
    ax.set(xlabel="predicted success", ylabel="observed success", xlim=(0, 1), ylim=(0, 1))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    fig.tight_layout()
    fig.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("trace", nargs="?")
    parser.add_argument("--summarise", action="store_true")
    options = parser.parse_args()
    if not options.summarise:
        if options.trace is None:
            parser.error("give a TRACE, or --summarise")
        command = [sys.executable, "-m", "dopr", "replay", options.trace, "--seeds", str(SEEDS), "--output", str(STORE)]
        subprocess.run(command, check=True)
        stored = json.loads(STORE.read_text())
        STORE.write_text(json.dumps(stored | {"trace": Path(stored["trace"]).name}) + "\n")
    stored = json.loads(STORE.read_text())
    write_page(stored)
    draw(stored)


if __name__ == "__main__":
    main()
