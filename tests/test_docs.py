"""What the documents show is run as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from dopr.config import TrainSettings
from dopr.config_layers import build, read_config_file
from dopr.selection import STRATEGIES

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.trl
def test_the_two_line_move_from_trl_runs(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "trl.md").read_text(), re.S)
    assert code
    done = subprocess.run(
        [sys.executable, "-c", code[1]], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rollouts, coverage = done.stdout.splitlines()[-1].split()
    # 20 updates are seven to twenty rounds of one prompt, with two replay updates each once there are 8 successes.
    rounds = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    picks = [pick for e in rounds for pick in e["picks"]]
    step = found = 0
    for e in rounds:
        assert e["step"] == step
        found += sum(reward == 1 for pick in e["picks"] for reward in pick["rewards"])
        step += 1 + 2 * (found >= 8)
    assert 20 <= step <= 22  # the last round's replay updates may be too many
    assert len(picks) == len(rounds)
    assert int(rollouts) == sum(pick["rollouts"] for pick in picks)
    assert all(2 <= pick["rollouts"] <= 8 for pick in picks)
    assert float(coverage) == len({pick["id"] for pick in picks}) / 64


@pytest.mark.slow
@pytest.mark.trl
def test_the_strategy_of_the_documents_trains_and_replays(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "strategies.md").read_text(), re.S)
    assert code
    assert len(code[1].splitlines()) <= 36
    (tmp_path / "frontier.py").write_text(code[1])

    def dopr(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = shutil.which("dopr", path=Path(sys.executable).parent)
        assert command
        return subprocess.run(
            [command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    done = dopr(
        "train", "--strategy", "frontier:Frontier", "--option", "keep=0.5", "--budget", "rollouts=80", "--eval-problems", "0",
        "--output", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    picks = [p for e in events if e["kind"] == "round" for p in e["picks"]]
    assert len(picks) == 10
    assert picks[0]["predicted"] == 0.5
    done = dopr(
        "replay", "run", "--strategies", "frontier:Frontier,random-one", "--seeds", "2", "--budget", "rollouts=80"
    )
    assert done.returncode == 0, done.stderr
    assert "frontier" in done.stdout


def test_the_strategies_page_names_every_preset_and_nothing_else() -> None:
    text = (ROOT / "docs" / "strategies.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (\d) \|$", text, re.M)
    assert {name: int(k) for name, k in rows} == {n: cls.default_prompts_per_round for n, cls in STRATEGIES.items()}
    for cls in STRATEGIES.values():
        for option in fields(cls.Options):
            assert re.search(rf"^    +{option.name}: ", cls.Options.__doc__ or "", re.M), (cls.name, option.name)


def test_every_shipped_config_parses() -> None:
    configs = sorted((ROOT / "benchmarks").rglob("*.yaml"))
    assert configs
    for config in configs:
        build(TrainSettings, read_config_file(str(config)))


def test_the_readme_names_only_commands_and_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", text, re.M):
        assert f"\n{target}:" in makefile, target
    for link in re.findall(r"\]\(((?!http)[^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    help_ = subprocess.run(
        [sys.executable, "-m", "dopr", "train", "--help"], capture_output=True, text=True, check=True
    )
    for flag in re.findall(r"dopr train[^\n`]*", text):
        for option in re.findall(r"--[a-z-]+", flag):
            assert option in help_.stdout, option


def test_the_readmes_tables_are_those_of_the_stored_results() -> None:
    code = "import readme; text = readme.README.read_text(); print(readme.filled(text) == text)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr or "Run `make docs`."


def test_recorded_baselines_are_whole() -> None:
    worlds = json.loads((ROOT / "src" / "dopr" / "assets" / "baselines.json").read_text())["worlds"]
    assert "latent-strategy" in worlds
    for entry in worlds.values():
        assert entry["seeds"] >= 5
        assert 0 < entry["before"] < entry["target"] < entry["end"]["accuracy"]["estimate"] <= 1
        assert entry["rollouts"]["low"] <= entry["rollouts"]["estimate"] <= entry["end"]["rollouts"]
