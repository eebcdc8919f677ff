"""``dopr bound``: from numbers and beside a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli_kit import dopr
from dopr.cli.bound import ceiling_text
from dopr.errors import RunError
from dopr.report import write_report
from dopr.report_bounds import run_bounds
from dopr.theory import selection_ceiling


def write_run(
    directory: Path, *, kl: float = 0.002, updates: int = 60, end: float = 0.62, outcomes: str = "wmm", rollouts: int = 8,
    replay: int = 0, successes: tuple[int, ...] = (0, 4), **settings: Any,
) -> Path:  # fmt: skip
    """A finished run's files, as ``dopr train`` writes them."""
    directory.mkdir()
    (directory / "config.json").write_text(
        json.dumps(
            {
                "settings": {"data": "data.jsonl", "model": "m", "temperature": None, "prompts_per_round": 1}
                | settings,
                "resolved": {
                    "group_size": 8,
                    "replay": replay,
                    "problems": 100,
                    "sampling": {"temperature": 1.0, "top_p": 1.0},
                },
            }
        )
    )

    def evaluation(accuracy: float, done: int) -> dict[str, Any]:
        spent = {
            "rollouts": rollouts * done,
            "tokens": 80 * done,
            "seconds": 0.1 * done,
            "updates": done,
            "prompts": done,
        }
        return {"kind": "eval", "round": done, "spent": spent, "accuracy": accuracy, "low": accuracy - 0.06, "high": accuracy + 0.06,
                "n": 256, "by_skill": {}}  # fmt: skip

    def round_(number: int, outcome: str) -> dict[str, Any]:
        pick = {
            "id": f"p{number}",
            "rollouts": rollouts,
            "success": 0.5 if outcome == "mixed" else 0.0,
            "outcome": outcome,
            "tokens": 80,
        }
        return {"kind": "round", "round": number, "picks": [pick], "spent": {"rollouts": 8 * number}}

    probes = [
        {"kind": "probe", "round": i, "step": i, "kl": kl, "values": [kl * 0.9, kl * 1.1], "seconds": 0.1}
        for i in (1, 17, 33)
    ]
    base = {
        "kind": "base",
        "round": 0,
        "ids": [f"b{i}" for i in range(len(successes))],
        "successes": [*successes],
        "samples": 8,
    }
    rounds = [round_(i, {"w": "all_wrong", "m": "mixed"}[o]) for i, o in enumerate(outcomes, 1)]
    lines = [evaluation(0.27, 0), base, *rounds, *probes, evaluation(end, updates)]
    (directory / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "summary.json").write_text(json.dumps({"informative_share": 2 / 3, "spent": lines[-1]["spent"]}))
    return directory


def test_a_run_is_set_beside_its_bounds(tmp_path: Path) -> None:
    found = run_bounds(write_run(tmp_path / "run"))
    by_name = {row.theorem: row for row in found.rows}
    assert (by_name["T1"].used, by_name["T1"].bound) == (16, 2)  # the second group was the first that was mixed
    assert by_name["T2"].unit == "updates"
    assert by_name["T2"].used == 60
    assert by_name["T2"].bound == pytest.approx(12, abs=1)
    assert by_name["T2"].ratio == by_name["T2"].used / by_name["T2"].bound
    assert not any(row.beaten for row in found.rows)
    assert found.binding == "T2"
    assert found.ceiling is not None
    assert found.ceiling.gain == pytest.approx(2.0)  # one of the two probe prompts is informative
    assert found.probed == 2
    assert any(text.startswith("T3 to T5") for text in found.left_out)


def test_updates_bind_only_where_each_has_whole_groups_behind_it(tmp_path: Path) -> None:
    """dopr's own runs replay and stop groups at two rollouts: their updates do not cost a group each."""
    assert run_bounds(write_run(tmp_path / "whole")).binding == "T2"
    for name, settings in {
        "replay": {"replay": 8},
        "short": {"rollouts": 2},
        "twice": {"prompts_per_round": 2},
    }.items():
        found = run_bounds(write_run(tmp_path / name, **settings))
        assert "T2" in {row.theorem for row in found.rows}
        assert found.binding == "T1"


def test_a_first_signal_that_never_came_is_not_reported(tmp_path: Path) -> None:
    row = run_bounds(write_run(tmp_path / "none", outcomes="wwwww")).rows[0]
    assert row.sentence.startswith("None of the 5 groups (40 rollouts) could teach anything.")
    assert not row.beaten
    one = run_bounds(write_run(tmp_path / "one", outcomes="w", rollouts=1)).rows[0]
    assert not one.beaten  # nothing was learned, so nothing was learned too soon
    came = run_bounds(write_run(tmp_path / "came", outcomes="wwm")).rows[0]
    assert came.sentence.startswith("The first group that could teach anything was number 3, after 24 rollouts.")


def test_probed_prompts_give_no_ceiling(tmp_path: Path) -> None:
    text = dopr(tmp_path, "bound", "--run", str(write_run(tmp_path / "run")))
    assert "of the 2 probed prompts, at the base policy and as measured" in " ".join(text.split())
    assert "no selector" not in text
    hopeless = write_run(tmp_path / "hopeless", successes=(0,) * 8)
    assert "election" not in dopr(tmp_path, "bound", "--run", str(hopeless))
    known = ceiling_text(selection_ceiling([0.5, 0.0], 8), 0.5, 0)
    assert "no selector gains more than 2.00x over random. This run: 50%." in known


def test_brackets_in_the_directory_are_no_markup(tmp_path: Path) -> None:
    write_run(tmp_path / "[red]run")
    assert "[red]run" in dopr(tmp_path, "bound", "--run", "[red]run")


def test_the_command_shows_the_run_and_fails_when_a_bound_is_beaten(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    text = dopr(tmp_path, "bound", "--run", "run")
    assert "in fewer than" in text
    assert "this run used 60" in text
    write_run(tmp_path / "magic", kl=1e-7)
    text = dopr(tmp_path, "bound", "--run", "magic", code=1)
    assert "The run beats T2" in text
    rows = json.loads(dopr(tmp_path, "bound", "--run", "magic", "--json", code=1))["rows"]
    assert [row["theorem"] for row in rows if row["beaten"]] == ["T2"]


def test_what_cannot_be_said_of_a_run_is_left_out_with_the_reason(tmp_path: Path) -> None:
    greedy = write_run(tmp_path / "greedy", temperature=0.7)
    assert any("another policy" in text for text in run_bounds(greedy).left_out)
    flat = write_run(tmp_path / "flat", end=0.2)
    assert any("did not rise" in text for text in run_bounds(flat).left_out)
    blind = write_run(tmp_path / "blind")
    lines = [line for line in (blind / "events.jsonl").read_text().splitlines() if '"probe"' not in line]
    (blind / "events.jsonl").write_text("\n".join(lines) + "\n")
    assert any("--probe" in text for text in run_bounds(blind).left_out)
    (blind / "events.jsonl").write_text("")
    with pytest.raises(RunError, match="0 evaluations"):
        run_bounds(blind)


def test_bounds_from_numbers(tmp_path: Path) -> None:
    text = dopr(
        tmp_path, "bound", "--p0", ".3", "--target", ".8", "--group", "8", "--kl", "0.01", "--strategies", "1000"
    )
    assert "At 0.01 nats per update no method reaches 0.8 in fewer than 8 updates" in text
    assert "T1 asks for the most rollouts" in text
    assert "with less" not in text
    arguments = ("--rates", ".5,.1,.01x2", "--frequencies", "1/4x4", "--target", ".6", "--json")
    found = json.loads(dopr(tmp_path, "bound", *arguments))
    assert [b["theorem"] for b in found["bounds"]] == ["T1", "T4", "T5"]
    assert found["binding"] == "T5"
    world = json.loads(
        dopr(tmp_path, "bound", "--world", "latent-strategy", "--target", ".8", "--kl", "0.002", "--json")
    )
    assert [b["theorem"] for b in world["bounds"]] == ["T1", "T2", "T3", "T4", "T5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs --target"),
        (("--p0", ".3"), "needs --target"),
        (("--target", ".3"), "Give p0"),
        (("--p0", ".3", "--target", ".2"), "0 < p0 < target <= 1"),
        (("--p0", "0", "--target", ".2"), "0 < p0 < target <= 1"),
        (("--p0", ".3", "--target", ".8", "--kl", "0"), "kappa"),
        (("--p0", ".3", "--target", ".8", "--group", "1"), "group_size"),
        (("--p0", ".3", "--target", ".8", "--delta", "1"), "delta"),
        (("--p0", ".3", "--target", ".8", "--strategies", "1"), "strategies"),
        (("--p0", ".3", "--target", ".8", "--strategies", "5", "--p-plus", ".2", "--p-minus", ".2"), "tell nothing"),
        (("--p0", ".3", "--target", ".8", "--frequencies", "a,b"), "such as"),
        (("--p0", ".3", "--target", ".8", "--frequencies", ".9,.9"), "sum to"),
        (("--rates", ".1,.2x-3", "--target", ".8"), "such as"),
        (("--rates", ".1,.2x0", "--target", ".8"), "such as"),
        (("--rates", ".1,.2", "--target", ".8", "--frequencies", ".9"), "one each"),
        (("--world", "nowhere", "--target", ".8"), "no packaged world"),
        (("--run", "nowhere"), "no run directory"),
        (("--run", "nowhere", "--kl", "1"), "leave out --kl"),
        (("--run", "nowhere", "--group", "4", "--delta", ".5"), "leave out --group, --delta"),
        (("--rates", "0,1", "--target", ".8"), "rates are all 0 or 1"),
        (("--p0", ".3", "--target", ".8", "--kl", "1e-33"), "lost in rounding"),
    ],
)
def test_impossible_numbers_are_refused_in_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    text = dopr(tmp_path, "bound", *arguments, code=2)
    assert message in text
    assert "Traceback" not in text


def test_the_commands_of_the_theory_page_run(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "theory.md").read_text()
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("    dopr bound")]
    assert len(commands) == 3
    for command in commands:
        if "--run" in command:
            write_run(tmp_path / "run")
            command[command.index("--run") + 1] = "run"
        dopr(tmp_path, *command)


def test_the_report_shows_used_against_bound_where_it_can(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run")).read_text()
    assert "Used against the least possible" in page
    assert "in fewer than" in page
    flat = write_report(write_run(tmp_path / "flat", end=0.2)).read_text()
    assert "Used against the least possible" not in flat
