"""The run directory's files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dopr.errors import RunError
from dopr.runlog import EventLog, read_config, read_events, read_json, write_json
from dopr.train.state import load_state, save_state


def test_events_come_back_and_non_finite_numbers_are_null(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("round", round=1, scores=[1.0, float("nan")], text='<b>\u2028 "quoted" \ud800')
    log.write("eval", round=1, accuracy=float("inf"))
    events = read_events(tmp_path)
    assert events[0] == {"kind": "round", "round": 1, "scores": [1.0, None], "text": '<b>\u2028 "quoted" \ud800'}
    assert events[1]["accuracy"] is None


def test_a_half_written_last_line_is_skipped_and_then_cut(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("round", round=1)
    with log.path.open("a") as file:
        file.write('{"kind": "round", "rou')
    assert [e["round"] for e in read_events(tmp_path)] == [1]
    EventLog(log.path).write("round", round=2)
    assert [e["round"] for e in read_events(tmp_path)] == [1, 2]


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"kind": "round"}\nrubbish\n{"kind": "round"}\n{"kind": "round"}\n')
    with pytest.raises(RunError, match="line 2"):
        read_events(tmp_path)
    with pytest.raises(RunError, match="not a dopr run"):
        read_events(tmp_path / "nowhere")


def test_a_resumed_run_forgets_the_rounds_it_will_repeat(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    sizes = []
    for r in range(1, 6):
        log.write("round", round=r)
        log.write("eval", round=r)
        sizes.append(log.size)
        log.write("stop", round=r)
    log.cut_back(sizes[3], 4)  # what came after a checkpoint is repeated, too
    assert [(e["kind"], e["round"]) for e in read_events(tmp_path)][-3:] == [("stop", 3), ("round", 4), ("eval", 4)]
    log.cut_back(10**9, 3)  # the log of another run: by its rounds
    log.cut_back(sizes[0] - 5, 2)
    assert [(e["kind"], e["round"]) for e in read_events(tmp_path)][-2:] == [("eval", 2), ("stop", 2)]
    log.cut_back(0, 0)
    assert read_events(tmp_path) == []


def test_events_that_do_not_fit_leave_no_half_line(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from dopr.runlog import EventLog\n"
        "log = EventLog(Path(sys.argv[1])); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    while True: log.write('round', round=1, text='x' * 290)\n"
        "except OSError: pass\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "events.jsonl")], check=True)
    assert len(read_events(tmp_path)) == 3
    assert (tmp_path / "events.jsonl").read_text().endswith("}\n")


@pytest.mark.parametrize(
    "line", ["5", "[]", "{}", '{"kind": 3}', "null", '{"kind": "round", "round": [1]}', "[" * 100_000]
)
def test_lines_that_are_json_but_no_events_are_damage_too(tmp_path: Path, line: str) -> None:
    event = '{"kind": "round", "round": 1}\n'
    (tmp_path / "events.jsonl").write_text(f"{event}{line}\n{event}{event}")
    with pytest.raises(RunError, match="line 2 is not an event"):
        read_events(tmp_path)


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    (tmp_path / "config.json").write_text(json.dumps({"settings": {}}))
    with pytest.raises(RunError, match="lacks settings or resolved"):
        read_config(tmp_path)


def test_state_files_hold_no_pickles_and_refuse_damage(tmp_path: Path) -> None:
    state = {"a": np.arange(3), "b": {"c": ["x", "y"], "d": np.array([[1.5]])}, "e": None, "f": "text"}
    save_state(tmp_path / "s.npz", state)
    loaded = load_state(tmp_path / "s.npz")
    assert loaded["a"].tolist() == [0, 1, 2]
    assert loaded["b"]["d"].tolist() == [[1.5]]
    assert (loaded["b"]["c"], loaded["e"], loaded["f"]) == (["x", "y"], None, "text")
    raw = (tmp_path / "s.npz").read_bytes()
    for broken in (raw[: len(raw) // 2], b"", b"not a zip"):
        (tmp_path / "t.npz").write_bytes(broken)
        with pytest.raises(RunError, match="cannot be read"):
            load_state(tmp_path / "t.npz")
    with pytest.raises(RunError, match="missing"):
        load_state(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="allow_pickle"):
        save_state(tmp_path / "o.npz", {"a": np.array([object()])})
