"""One self-contained HTML page from a run directory: what was reached, what it cost, and what was picked when and why.

Reads config.json, events.jsonl and summary.json alone, so a run that was interrupted, or still goes on, has a report too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dopr.errors import DoprError, RunError
from dopr.report_bounds import bounds_of
from dopr.report_figures import OUTCOMES, PickRow, accuracy_figure, available, cost_figure, picks_figure
from dopr.report_html import DASH, count, duration, escape, figure, number, page, percent, table, tiles, with_interval
from dopr.report_run import RunRecord, read_run
from dopr.runlog import CONFIG, EVENTS, REPORT, informative_share, write_lines

_TOP_PROMPTS = 20
_TABLE_ROWS = 60
_OUTCOME_NAMES = {
    "mixed": "mixed: some right, some wrong \u2013 it teaches",
    "all_wrong": "all wrong",
    "all_right": "all right",
    "unscorable": "could not be scored",
}


def write_report(run_dir: str | Path) -> Path:
    """Write report.html into a run directory and return its path.

    Without matplotlib the page has its tables only and says how to get the figures.

    Raises:
        RunError: the directory does not exist, is not a run directory, or its files are damaged beyond a half-written
            last line.
    """
    directory = Path(run_dir)
    try:
        run = read_run(directory)
        text = page(f"{run.name} \u2013 dopr", _body(run))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, DoprError):
            raise
        raise RunError(
            f"The files of {directory} hold values that no run writes ({type(error).__name__}: {error}), so there is no report "
            "of it. Restore them."
        ) from error
    path = directory / REPORT
    write_lines(path, [text])
    return path


def _body(run: RunRecord) -> str:
    figures = available()
    parts = [_head(run)]
    parts += [f'<p class="notice">{escape(text)}</p>' for text in run.notices]
    if not figures:
        parts.append('<p class="notice">The figures need matplotlib: <code>pip install dopr[report]</code>, '
                     "then write the report again.</p>")  # fmt: skip
    parts += [_tiles(run), _warnings(run), _learning(run, figures), _results(run), _against_baseline(run)]
    if run.picks:
        parts += [_choice(run, figures), _cost(run, figures), _bounds(run), _prompts(run)]
    else:
        parts.append("<h2>Rounds</h2><p>No round was finished, so there is nothing to show of what was picked.</p>")
    parts.append(_settings(run))
    return "\n".join(part for part in parts if part)


def _head(run: RunRecord) -> str:
    def known(name: str) -> Any:
        return run.summary.get(name) or run.config.get(name)

    strategy, model, data = known("strategy"), known("model"), known("data")
    what = f"{escape(model, 120)} on {escape(data, 120)}" if model and data else escape(run.name, 120)
    chosen = f" (strategy <b>{escape(strategy, 60)}</b>)" if strategy else ""
    status = escape(run.summary.get("status") or "not finished", 40)
    reason = run.summary.get("reason") or next((e.get("reason") for e in run.events.get("stop", [])[-1:]), None)
    return (
        f"<h1>{what}</h1>\n<p class=muted>A language model trained by reinforcement learning with verifiable rewards: "
        f"each round chooses problems to learn from{chosen}, samples several answers to each, has a verifier check "
        f"them, and updates the model.</p>\n<p>Status: <b>{status}</b>{f' {DASH} {escape(reason, 300)}' if reason else ''}</p>"
    )


def _ends(run: RunRecord) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Accuracy with its interval before and after: the summary's, else the first and the last evaluation's."""
    evals = run.evals
    measured = (evals[:1], evals[1:][-1:])
    found: list[Mapping[str, Any]] = []
    for name, points in zip(("before", "after"), measured, strict=True):
        recorded = run.summary.get(name)
        fallback = {"accuracy": points[0][1], "low": points[0][2], "high": points[0][3]} if points else {}
        found.append(recorded if isinstance(recorded, Mapping) else fallback)
    return found[0], found[1]


def _tiles(run: RunRecord) -> str:
    spent = run.spent
    shares = [number(end.get("accuracy")) for end in _ends(run)]
    before, after = (DASH if share is None else f"{share:.0%}" for share in shares)
    return tiles(
        [
            (f"{before} \u2192 {after}", "accuracy"),
            (count(spent.get("rollouts")), "rollouts"),
            (count(spent.get("tokens")), "tokens generated"),
            (duration(spent.get("seconds")), "time in training"),
            (count(spent.get("updates")), "updates"),
        ]
    )


def _results(run: RunRecord) -> str:
    before, after = _ends(run)
    rows = [("accuracy before", with_interval(before)), ("accuracy after", with_interval(after))]
    for when, end in (("before", before), ("after", after)):
        if isinstance(decoded := end.get("greedy"), Mapping):
            rows.append((f"greedy decoding {when}", with_interval(decoded)))
    difference = run.summary.get("difference")
    if isinstance(difference, Mapping):
        points = {name: 100 * x for name in difference if (x := number(difference[name])) is not None}
        rows.append(("difference in percentage points", with_interval(points, "+.1f")))
    n = number(before.get("n"))
    if n is not None:
        rows.append(("held-out problems", count(n)))
    informative = run.summary.get("informative_share")
    if informative is None:
        informative = informative_share((pick.outcome, pick.rollouts) for pick in run.picks)
    rows.append(("groups with both right and wrong answers", percent(informative)))
    return "<h2>Results</h2>" + table(("", "95 % interval in brackets"), rows)


def _against_baseline(run: RunRecord) -> str:
    baseline = run.summary.get("baseline")
    if not isinstance(baseline, Mapping):
        return ""
    target = number(baseline.get("target"))
    at = "" if target is None else f" an accuracy of {target:.0%}"
    reached = run.summary.get("reached")
    own = reached if isinstance(reached, Mapping) else {}
    name, seeds = str(baseline.get("name") or "baseline"), count(baseline.get("seeds"))
    rows = []
    for unit, form in (("rollouts", ",.0f"), ("tokens", ",.0f"), ("seconds", ",.0f")):
        theirs, mine = baseline.get(unit), own.get(unit)
        if theirs is None and mine is None:
            continue
        estimate = number(theirs.get("estimate")) if isinstance(theirs, Mapping) else number(theirs)
        value = number(mine)
        times = DASH if not value or estimate is None else f"{estimate / value:.1f}\u00d7"
        shown = (DASH if own else "not reached") if value is None else format(value, form)
        rows.append((unit, shown, with_interval(theirs, form), times))
    if not rows:
        return ""
    return (
        f"<h2>Against the recorded baseline</h2><p>Spent to reach{escape(at) or ' the target'}, by this run and by "
        f"<b>{escape(name, 80)}</b> (recorded over {seeds} seeds; interval in brackets). This run is a single seed.</p>"
        + table(("To reach the target", "this run", name, "baseline / this run"), rows)
    )


def _bounds(run: RunRecord) -> str:
    try:
        found = bounds_of(run)
    except (
        RunError,
        KeyError,
        TypeError,
        ValueError,
    ):  # a log may lack or garble what they need; the page stands without them
        return ""
    rows = [
        (f"{r.theorem} {r.name}", f"{r.bound:,.0f} {r.unit}", f"{r.used:,.0f}", f"{r.ratio:,.1f}", r.sentence)
        for r in found.rows
        if r.theorem != "T1"
    ]
    if not rows:
        return ""
    return (
        "<h2>Used against the least possible</h2><p>No method that keeps to the assumptions of docs/theory.md can do with less.</p>"
        + table(("Theorem", "at least", "used", "used / bound", "what it says"), rows, text_columns=[4])
    )


def _warnings(run: RunRecord) -> str:
    groups: dict[str, list[dict[str, Any]]] = {}
    for event in run.events.get("warning", []):
        groups.setdefault(str(event.get("code")), []).append(event)
    if not groups:
        return ""
    rows = [
        (code, count(len(seen)), count(seen[0].get("round")), seen[-1].get("text", "")) for code, seen in groups.items()
    ]
    return "<h2>Warnings</h2>" + table(
        ("Warning", "times", "first round", "last text"), rows[:_TABLE_ROWS], text_columns=[3]
    )


def _learning(run: RunRecord, figures: bool) -> str:
    evals = run.evals
    baseline = run.summary.get("baseline")
    curve = baseline.get("curve") if isinstance(baseline, Mapping) else None
    points = [(float(p[0]), float(p[1])) for p in curve if len(p) == 2] if isinstance(curve, list) else []
    drawn = None
    if figures:
        name = str(baseline.get("name") or "baseline") if isinstance(baseline, Mapping) else "baseline"
        target = number(run.summary.get("target"))
        drawn = accuracy_figure(evals, run.picks, (name, points) if points else None, target)
    if drawn is None and not evals:
        return ""
    caption = (
        "Accuracy on problems the run does not train on, with its 95 % interval. The groups a strategy chooses are not "
        "a fair sample (often hard on purpose), so their success may stay below the accuracy."
    )
    rows = [(count(at), with_interval({"estimate": y, "low": low, "high": high})) for at, y, low, high in evals]
    step = -(-len(rows) // _TABLE_ROWS) if rows else 1
    numbers = table(("Rollouts", "accuracy"), rows[::step])
    detail = f"<details{'' if drawn else ' open'}><summary>Every evaluation in numbers</summary>{numbers}</details>"
    return "<h2>Accuracy against rollouts</h2>" + figure(drawn, caption) + (detail if rows else "")


def _choice(run: RunRecord, figures: bool) -> str:
    drawn = picks_figure(run.picks) if figures else None
    distinct = len({pick.prompt for pick in run.picks})
    text = f"<p>{len(run.picks):,} groups of {distinct:,} different prompts were rolled out.</p>"
    if drawn is None:
        return "<h2>What was picked when</h2>" + text
    svg, kind = drawn
    caption = (
        f"One dot is one group of rollouts; a row is one {kind}, ordered by success when first seen (hardest on top). "
        "A row that turns from red to green was learned."
    )
    return "<h2>What was picked when</h2>" + text + figure(svg, caption)


def _cost(run: RunRecord, figures: bool) -> str:
    groups: Counter[str] = Counter()
    rollouts: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for pick in run.picks:
        groups[pick.outcome] += 1
        rollouts[pick.outcome] += pick.rollouts
        tokens[pick.outcome] += pick.tokens
    total = sum(rollouts.values()) or 1
    rows = "".join(
        f'<tr><td class="key"><i style="background:{colour}"></i>{_OUTCOME_NAMES[kind]}</td><td>{groups[kind]:,}</td>'
        f"<td>{rollouts[kind]:,}</td><td>{rollouts[kind] / total:.1%}</td><td>{tokens[kind]:,}</td></tr>"
        for kind, colour in OUTCOMES.items()
    )
    head = "<th>Groups that came out</th><th>groups</th><th>rollouts</th><th>share</th><th>tokens</th>"
    return (
        "<h2>What the rollouts bought</h2><p>Only a group with both right and wrong answers has a gradient of its own; "
        "the rest is the price of finding it.</p>"
        + figure(cost_figure(run.picks) if figures else None, "Everything spent so far, by how the groups came out.")
        + f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _prompts(run: RunRecord) -> str:
    visits: dict[str, list[PickRow]] = {}
    for pick in run.picks:
        visits.setdefault(pick.prompt, []).append(pick)
    most = sorted(visits.values(), key=lambda seen: -len(seen))[:_TOP_PROMPTS]
    label = next((kind for kind in ("skill", "cluster") if any(getattr(p, kind) is not None for p in run.picks)), None)
    rows: list[Sequence[Any]] = []
    for seen in most:
        known = [pick.success for pick in seen if pick.success is not None]
        ends = (percent(known[0]), percent(known[-1])) if known else (DASH, DASH)
        extra = (getattr(seen[-1], label) or DASH,) if label else ()
        rows.append((seen[0].prompt, *extra, len(seen), f"{sum(p.rollouts for p in seen):,}", seen[-1].round, *ends))
    head = ("Prompt", *((label,) if label else ()), "visits", "rollouts", "last round", "first success", "last success")
    return "<h2>Most-picked prompts</h2>" + table(head, rows)


def _settings(run: RunRecord) -> str:
    from dopr import __version__

    text = json.dumps(run.config, indent=2, ensure_ascii=False)
    shown = f"<details><summary>{escape(CONFIG)}</summary><pre>{escape(text)}</pre></details>" if run.config else ""
    return (f"<h2>Settings</h2>{shown or '<p>The run recorded none.</p>'}"
            f"<footer>Written by dopr {escape(__version__)} from {escape(run.name)}/{EVENTS}.</footer>")  # fmt: skip
