"""Every strategy on latent-strategy at an equal budget: docs/results/strategies.{md,svg,json}.

    python benchmarks/strategies.py                     dopr compare (an hour or two on two cores; goes on where it stopped)
    python benchmarks/strategies.py --publish DIR       only the page, from a comparison's directory
    python benchmarks/strategies.py --publish DIR --name mixed      the same for another comparison, as mixed.*

The page is that of `dopr compare`; for latent-strategy with the share of the elicitation floor (docs/theory.md, T5) added.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from dopr import theory
from dopr.compare.page import draw, markdown, ordered
from dopr.compare.results import RunResult
from dopr.tasks.tiny import measured_success

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
COMMAND = [
    "compare", "--world", "latent-strategy", "--strategies", "all,random-one+wrong_cap=32+replay=8,uniform+prompts_per_round=64",
    "--seeds", "3", "--budget", "rollouts=3000", "--output", "latent-strategy",
]  # fmt: skip


def publish(directory: Path, name: str) -> None:
    stored = json.loads((directory / "results.json").read_text())
    summary, meta = stored["summary"], stored["meta"]
    runs = {name: [RunResult.from_dict(r) for r in rows] for name, rows in stored["runs"].items()}
    draw(runs, summary["reference"], RESULTS / f"{name}.svg")
    page = markdown(summary, meta, f"{name}.svg") + ("" if name != "strategies" else floor_table(summary))
    (RESULTS / f"{name}.md").write_text(page)
    (RESULTS / f"{name}.json").write_text(json.dumps(stored) + "\n")
    print(page)


def floor_table(summary: dict[str, Any]) -> str:
    target = summary["targets"][-1]
    floor = theory.elicitation_floor([v.rate for v in measured_success("latent-strategy").values()], target)
    lines = [
        "", f"## Rollouts to {target:.0%} against the floor", "",
        f"If skills do not transfer, {len(floor.skills)} of them must show a first success: {floor.rollouts:.0f} rollouts on average (T5 of "
        "[theory.md](../theory.md)).", "", "| arm | rollouts | used / floor |", "|---|---|---|",
    ]  # fmt: skip
    for name in ordered(summary):
        cell = summary["arms"][name]["to_target"][-1]["rollouts"]
        shown = (
            ("not reached", "")
            if cell is None
            else (f"{cell['estimate']:,.0f}", f"{cell['estimate'] / floor.rollouts:.0f}")
        )
        lines.append(f"| {name} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--publish", metavar="DIR")
    parser.add_argument("--name", default="strategies")
    options = parser.parse_args()
    if options.publish is None:
        subprocess.run([sys.executable, "-m", "dopr", *COMMAND], check=True)
    publish(Path(options.publish or COMMAND[-1]), options.name)


if __name__ == "__main__":
    main()
