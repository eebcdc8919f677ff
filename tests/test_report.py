from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopr.errors import RunError
from dopr.report import write_report
from dopr.report_html import clean, duration, escape, number, table, with_interval
from dopr.report_run import read_run

VOID = {"meta", "br", "img", "hr", "link", "input", "path", "use", "image", "stop"}


class Document(HTMLParser):
    """The page as a browser's parser sees it: elements, texts, addresses it would fetch, and unclosed elements."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.addresses, self.texts, self.events = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.events.append(name)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def pick(prompt="p1", rewards=(1.0, 0.0), **more):
    scored = [r for r in rewards if r is not None]
    success = sum(scored) / len(scored) if scored else None
    outcome = "unscorable" if success is None else {0.0: "all_wrong", 1.0: "all_right"}.get(success, "mixed")
    base = {"id": prompt, "score": 0.3, "rollouts": len(rewards), "rewards": list(rewards), "success": success}
    return base | {"outcome": outcome, "action": "keep", "entropy": None, "tokens": 10, "cluster": None, "skill": None} | more  # fmt: skip


def round_events(groups):
    rollouts = 0
    for i, group in enumerate(groups, start=1):
        rollouts += sum(p["rollouts"] for p in group)
        spent = {"rollouts": rollouts, "tokens": 10 * i, "seconds": 0.5 * i, "updates": i, "prompts": i}
        yield {"kind": "round", "round": i, "step": i, "picks": group, "candidates": [], "scores": [], "spent": spent}


def eval_event(round_, rollouts, accuracy, width=0.05):
    return {"kind": "eval", "round": round_, "spent": {"rollouts": rollouts}, "accuracy": accuracy,
            "low": accuracy - width, "high": accuracy + width, "n": 256, "tokens": 99, "by_skill": {}}  # fmt: skip


SUMMARY = {
    "status": "finished", "reason": "budget spent", "model": "org/tiny", "data": "world:mixed", "strategy": "dopr",
    "before": {"accuracy": 0.2, "low": 0.15, "high": 0.25, "n": 256},
    "after": {"accuracy": 0.61, "low": 0.55, "high": 0.67, "n": 256},
    "difference": {"estimate": 0.41, "low": 0.36, "high": 0.46},
    "spent": {"rollouts": 1234, "tokens": 56789, "seconds": 75.0, "updates": 150, "prompts": 150},
    "informative_share": 0.555, "target": 0.6, "reached": {"rollouts": 1000},
    "baseline": {"name": "batch GRPO 64 x 8", "target": 0.6, "seeds": 5, "tokens": 300_000, "seconds": 900,
                 "rollouts": {"estimate": 12_500, "low": 11_000, "high": 14_000},
                 "curve": [[0, 0.2], [6000, 0.4], [13_000, 0.61]]},
}  # fmt: skip


def run_directory(path, events=(), *, config=None, summary=SUMMARY):
    path.mkdir(exist_ok=True)
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (path / "config.json").write_text(json.dumps(config or {"seed": 7, "group_size": 8}))
    if summary is not None:
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def report(path):
    """The written page, parsed, after the checks that every page must pass."""
    text = write_report(path).read_text("utf-8")
    document = Document(text)
    assert document.open == []
    assert "script" not in document.tags
    assert document.events == []
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in document.addresses)
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"@import|url\((?!#)", text)
    return document


def groups_with_skills(n=60, skills=4, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(n):
        skill = int(rng.integers(skills))
        rewards = [float(x) for x in rng.random(8) < (skill + 1) / (skills + 1)]
        yield [pick(f"p{rng.integers(20)}", rewards, skill=f"s{skill}", cluster=i % 3)]


def test_a_finished_run_shows_its_numbers(tmp_path):
    events = [eval_event(0, 0, 0.2), *round_events(groups_with_skills()), eval_event(60, 1234, 0.61)]
    document = report(run_directory(tmp_path / "run", events))
    text = document.text
    for expected in ("org/tiny on world:mixed", "20% → 61%", "1,234", "56,789", "1 min 15 s", "20.0% [15.0%, 25.0%]",
                     "61.0% [55.0%, 67.0%]", "+41.0 [+36.0, +46.0]", "55.5%", "finished"):  # fmt: skip
        assert expected in text
    assert document.tags.count("svg") == 3
    assert "s3" in text  # rows of the pick map carry the skills' names
    assert '"group_size": 8' in text


def test_the_baseline_is_compared_at_the_target_and_its_curve_drawn(tmp_path):
    events = [eval_event(0, 0, 0.2), *round_events(groups_with_skills()), eval_event(60, 1234, 0.61)]
    text = report(run_directory(tmp_path / "run", events)).text
    assert "to reach an accuracy of 60%" in text
    assert "12,500 [11,000, 14,000]" in text
    assert "12.5×" in text
    missed = report(run_directory(tmp_path / "missed", events, summary=SUMMARY | {"reached": None})).text
    assert "not reached" in missed
    assert "12.5×" not in missed
    alone = report(run_directory(tmp_path / "alone", events, summary=SUMMARY | {"baseline": None})).text
    assert "baseline" not in alone
    assert "batch GRPO" not in alone


HOSTILE = "</td></script><script>alert(1)</script><img src=x onerror=alert(1)> $\\frac{$ \x00\x1b[31m \ud800 \u202e 漢字 &amp; \"'"


def test_hostile_text_stays_text_everywhere(tmp_path):
    groups = [[pick(HOSTILE + str(i), (1.0, 0.0), skill=HOSTILE * (i % 2))] for i in range(12)]
    summary = SUMMARY | {"model": HOSTILE, "data": HOSTILE, "strategy": HOSTILE, "reason": HOSTILE, "status": HOSTILE}
    summary["baseline"] = SUMMARY["baseline"] | {"name": HOSTILE}
    warning = {"kind": "warning", "round": 1, "code": HOSTILE, "text": HOSTILE}
    events = [eval_event(0, 0, 0.1), *round_events(groups), warning, {"kind": "stop", "round": 1, "reason": HOSTILE}]
    document = report(run_directory(tmp_path / "a<b>&'run", events, config={HOSTILE: HOSTILE}, summary=summary))
    assert "img" not in document.tags
    assert document.text.count("<script>alert(1)</script>") >= 12
    assert "&amp;" in document.text  # shown as it was written, not decoded twice
    assert not {"\x00", "\x1b", "\u202e"} & set(document.text)


def test_labels_that_look_like_broken_formulas_are_drawn_as_text(tmp_path):
    formula = "$\\frac{$ _^"
    groups = [[pick(f"p{i}", skill=formula)] for i in range(3)]
    summary = SUMMARY | {"baseline": SUMMARY["baseline"] | {"name": formula}}
    text = report(run_directory(tmp_path / "run", round_events(groups), summary=summary)).text
    assert text.count(formula) >= 4


@given(st.text())
def test_escaped_text_reads_back_as_the_cleaned_text_and_can_be_written(value):
    escaped = escape(value)
    escaped.encode("utf-8")
    assert not set("<>\"'") & set(escaped)
    cell = Document(f'<p title="{escaped}">{escaped}</p>')
    assert cell.tags == ["p"]
    assert "".join(cell.texts) == clean(value)
    assert len(clean(value, 5)) <= 5


def test_an_interrupted_run_reports_what_there_is_and_says_so(tmp_path):
    path = run_directory(tmp_path / "run", [eval_event(0, 0, 0.2), *round_events(groups_with_skills(9))], summary=None)
    with (path / "events.jsonl").open("a") as file:
        file.write('{"kind": "round", "round": 10, "picks": [{"id": "cut-o')
    text = report(path).text
    assert "no summary.json" in text
    assert "incomplete and was skipped" in text
    assert "20% → –" in text
    assert "9 groups of" in text
    assert "72 rollouts" in text  # from the last round's totals
    assert "cut-o" not in text
    whole = report(run_directory(tmp_path / "whole", [eval_event(0, 0, 0.2)])).text
    assert "skipped" not in whole


@pytest.mark.parametrize(
    "events", [[], [eval_event(0, 0, 0.2)], [{"kind": "stop", "round": 0, "reason": "interrupted"}]]
)
def test_a_run_without_rounds_has_a_page(tmp_path, events):
    document = report(run_directory(tmp_path / "run", events, summary=None))
    assert "No round was finished" in document.text


def test_a_run_that_wrote_only_its_settings_has_a_page(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "m"}')
    assert "No round was finished" in report(tmp_path).text


def test_without_matplotlib_the_tables_stay_and_the_page_says_how_to_get_figures(tmp_path, monkeypatch):
    events = [eval_event(0, 0, 0.2), *round_events(groups_with_skills()), eval_event(60, 480, 0.61)]
    path = run_directory(tmp_path / "run", events)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    document = report(path)
    assert "svg" not in document.tags
    assert "pip install dopr[report]" in document.text
    assert "61.0% [56.0%, 66.0%]" in document.text  # the evaluations as a table
    assert "Most-picked prompts" in document.text


def test_ten_thousand_rounds_stay_a_page_of_moderate_size(tmp_path):
    rng = np.random.default_rng(0)
    rewards = (rng.random((10_000, 8)) < 0.4).astype(float).tolist()
    groups = [[pick(f"p{int(rng.integers(5000))}", r)] for r in rewards]
    path = run_directory(tmp_path / "run", round_events(groups))
    document = report(path)
    assert (path / "report.html").stat().st_size < 1_300_000
    assert "10,000 groups" in document.text


def test_groups_that_could_not_be_scored_are_shown_as_such(tmp_path):
    groups = [[pick(f"p{i}", (None, None))] for i in range(5)]
    text = report(run_directory(tmp_path / "run", round_events(groups))).text
    assert "could not be scored 5 10 100.0%" in text


def test_the_cost_table_adds_up_what_the_groups_spent(tmp_path):
    groups = [[pick("a", (1.0, 0.0))], [pick("b", (0.0,) * 32), pick("c", (1.0,) * 8)], [pick("a", (1.0, 0.0, None))]]
    text = report(run_directory(tmp_path / "run", round_events(groups))).text
    assert "it teaches 2 5 11.1% 20" in text
    assert "all wrong 1 32 71.1% 10" in text
    assert "all right 1 8 17.8% 10" in text
    assert "a 2 5 3 50.0% 50.0%" in text  # the most-picked prompt first


def test_warnings_are_grouped_by_code(tmp_path):
    warnings = [{"kind": "warning", "round": r, "code": "all_wrong", "text": f"text {r}"} for r in (20, 40, 60)]
    text = report(run_directory(tmp_path / "run", warnings)).text
    assert "all_wrong 3 20 text 60" in text


def test_the_same_run_gives_the_same_page(tmp_path):
    events = [eval_event(0, 0, 0.2), *round_events(groups_with_skills()), eval_event(60, 480, 0.6)]
    path = run_directory(tmp_path / "run", events)
    first = write_report(path).read_bytes()
    assert write_report(path).read_bytes() == first
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "events.jsonl", "report.html", "summary.json"]


def test_what_is_not_a_run_directory_is_explained(tmp_path):
    with pytest.raises(RunError, match="There is no run directory"):
        write_report(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RunError, match=r"not a run directory.*It holds notes\.txt"):
        write_report(tmp_path)
    path = run_directory(tmp_path / "run", round_events(groups_with_skills(3)))
    lines = (path / "events.jsonl").read_text().splitlines()
    (path / "events.jsonl").write_text("\n".join([lines[0], "{broken", lines[2]]) + "\n")
    with pytest.raises(RunError, match="line 2"):
        write_report(path)
    assert not (path / "report.html").exists()


def test_odd_values_in_the_log_do_not_stop_the_report(tmp_path):
    odd = [
        {"kind": "round", "round": 1, "picks": None},
        {
            "kind": "round",
            "round": 2,
            "picks": [None, {"id": None, "success": "high", "outcome": "?", "rollouts": None}],
        },
        {"kind": "eval", "round": 2, "accuracy": None},
        {"kind": "eval", "round": 2, "accuracy": 0.5, "low": None, "high": None},
        {"kind": "unknown"},
        {"kind": "warning"},
        ["not", "an", "object"],
    ]
    report(run_directory(tmp_path / "run", odd, summary={"spent": None, "before": 3}))


@pytest.mark.parametrize(
    ("skill", "cluster", "expected"), [("s1", 4, "skill"), (None, 4, "cluster"), (None, None, "prompt")]
)
def test_the_pick_map_has_a_row_per_skill_else_cluster_else_prompt(tmp_path, skill, cluster, expected):
    groups = [[pick(f"p{i}", (1.0, 0.0), skill=skill, cluster=cluster)] for i in range(12)]
    text = report(run_directory(tmp_path / "run", round_events(groups))).text
    assert f"a row is one {expected}" in text


def test_the_running_success_is_the_mean_of_the_last_groups(tmp_path):
    from dopr.report_figures import _running_success

    rng = np.random.default_rng(0)
    rewards = [[float(x) for x in rng.random(4) < 0.5] for _ in range(50)]
    rewards[7] = [None] * 4
    path = run_directory(tmp_path / "run", round_events([[pick("p", r)] for r in rewards]))
    x, y = _running_success(read_run(path).picks)
    success = [np.mean(r) for r in rewards if r[0] is not None]
    assert list(x) == [4 * (i + 1) for i in range(10, 50)]
    np.testing.assert_allclose(y, [np.mean(success[i - 9 : i + 1]) for i in range(9, 49)])


def test_numbers_read_well():
    assert [duration(s) for s in (5.25, 75, 3600 * 2 + 60 * 5 + 4, None)] == ["5.2 s", "1 min 15 s", "2 h 5 min", "–"]
    assert [number(v) for v in (1, True, "1", float("nan"), float("inf"), None)] == [1.0, None, None, None, None, None]
    assert with_interval({"accuracy": 0.5, "low": None, "high": 0.6}) == "50.0%"
    assert with_interval(None) == "–"
    assert "<td class=text>&lt;b&gt;</td>" in table(("a", "b"), [(1, "<b>")], text_columns=[1])


def test_report_modules_import_without_matplotlib():
    import subprocess

    code = "import sys, dopr.report; sys.exit(bool({'matplotlib', 'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
