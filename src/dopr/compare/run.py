"""``dopr compare`` without its terminal: tune, run, summarise, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dopr.budget import Budget
from dopr.compare.arms import Arm, Job, common_settings, final_jobs, make_arms, tuning_jobs
from dopr.compare.jobs import run_jobs
from dopr.compare.page import draw, markdown
from dopr.compare.results import RunResult, choose_rate, read_result, summarise, tuning_score
from dopr.config import CompareSettings, TrainSettings
from dopr.config_layers import build
from dopr.errors import ConfigError, RunError
from dopr.runlog import CONFIG, read_json, write_json, write_lines
from dopr.selection.registry import STRATEGIES
from dopr.train.metadata import metadata_of
from dopr.train.prepare import is_tiny_name, prepare

SETTINGS, RESULTS, PAGE, FIGURE, RUNS = "compare.json", "results.json", "results.md", "accuracy.svg", "runs"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What ``compare`` leaves behind: its directory, the summary, and what the page says about the arms."""

    directory: Path
    summary: dict[str, Any]
    meta: dict[str, Any]


def compare(settings: CompareSettings, *, command: str, say: Callable[[str], None]) -> Comparison:
    """Run every arm, at an equal budget unless an arm has its own; a comparison that was stopped goes on where it stopped.

    Args:
        settings: Of the comparison.
        command: The command line, for the page.
        say: Told one line per run.

    Raises:
        DoprError: Settings that cannot be, problems that cannot be used, or runs that failed.
    """
    common = common_settings(settings)
    prepared = prepare(build(TrainSettings, common, {"strategy": "random-one"}))
    known = metadata_of(lambda name: [p.extra.get(name) for p in prepared.problems])
    if not prepared.held_out:
        raise ConfigError("There are no held-out problems to compare on. Give --eval-data, or more problems.")
    arms, left_out = make_arms(settings, lacking={n for cls in STRATEGIES.values() for n in cls.needs} - set(known))
    reference = _reference(settings, arms)
    directory = _directory(settings, common)
    at_once = settings.jobs or ((os.cpu_count() or 1) if is_tiny_name(settings.model) else 1)

    def run(jobs: Sequence[Job]) -> None:
        left = [job for job in jobs if not (directory / RUNS / job.slug).exists()]
        _check_same_problems(directory, [job for job in jobs if job not in left])  # before hours of others
        if left:
            what = "tuning runs" if left[0].tuning else "runs to report"
            say(f"{len(jobs)} {what}, {len(jobs) - len(left)} done before, {at_once} at once")
        done = 0

        def tell(job: Job, path: Path, seconds: float) -> None:
            nonlocal done
            done += 1
            last = read_result(path, job.seed)
            say(
                f"{done}/{len(left)}  {job.slug}: {last.correct.mean():.1%}, informative {last.informative:.0%}, {seconds:.0f} s"
            )

        run_jobs(jobs, directory / RUNS, at_once=at_once, keep_policies=settings.keep_policies, done=tell)
        _check_same_problems(directory, jobs)

    tuning = tuning_jobs(arms, settings)
    run(tuning)
    families = list(dict.fromkeys(arm.family for arm in arms))
    tried: dict[str, dict[float, list[RunResult]]] = {}
    for job in tuning:
        tried.setdefault(job.arm, {}).setdefault(job.rate, []).append(_result(directory, job))
    unequal = any("budget" in arm.settings for arm in arms)
    unit = Budget.parse(common["budget"]).unit if common["budget"] else "rollouts"
    least = min(_longest({name: runs}, unit) for name, runs in tried.items()) if tried and unequal else None
    rates = {name: _tuned([arm for arm in arms if arm.family == name], tried, unit, least) for name in families}
    wanted = {(chosen["arm"], chosen["rate"]) for chosen in rates.values()}
    final = [
        job
        for rate in sorted({rate for _, rate in wanted})
        for job in final_jobs([a for a in arms if (a.name, rate) in wanted], {a.name: rate for a in arms}, settings)
    ]
    run(final)
    results = {
        name: [_result(directory, job) for job in final if (job.arm, job.rate) == (chosen["arm"], chosen["rate"])]
        for name, chosen in rates.items()
    }
    summary = summarise(results, reference=reference, targets=settings.targets, unequal=unequal, unit=unit)
    meta = {
        "command": command, "budget": common["budget"] or "the default budget", "data": common["data"],
        "model": common["model"], "rates": rates, "left_out": left_out, "tuning": _tuning_text(settings, arms),
    }  # fmt: skip
    _write(directory, summary, meta, results)
    return Comparison(directory=directory, summary=summary, meta=meta)


def _tuned(
    arms: Sequence[Arm], tried: Mapping[str, Mapping[float, Sequence[RunResult]]], unit: str, least: float | None
) -> dict[str, Any]:
    """The chosen one of alternative arms, its chosen learning rate and grid, and the scores of all that was tried.

    Args:
        arms: Alternatives of one family.
        tried: Tuning runs by arm and rate; none for arms with nothing to choose.
        unit: What the budget counts.
        least: What every arm of the comparison spent of it in tuning, if budgets differ: scores over this are noted, too.
    """
    ran = {arm.name: tried[arm.name] for arm in arms if arm.name in tried}
    end = _longest(ran, unit)
    found: list[tuple[float, Arm, float, bool]] = []
    for arm in arms:
        if arm.name not in ran:
            found.append((0.0, arm, arm.rates[len(arm.rates) // 2], False))
            continue
        rate, edge = choose_rate(ran[arm.name], end, unit)
        found.append((tuning_score(ran[arm.name][rate], end, unit), arm, rate, edge))
    _, arm, rate, edge = max(found, key=lambda one: one[0])
    chosen = {"rate": rate, "edge": edge, "grid": list(arm.rates), "arm": arm.name, "tried": _scores(ran, end, unit)}
    return chosen if least is None else chosen | {"at_least": {unit: least, "tried": _scores(ran, least, unit)}}


def _longest(ran: Mapping[str, Mapping[float, Sequence[RunResult]]], unit: str) -> float:
    """What the longest of the runs spent."""
    return max((run.end(unit) for runs in ran.values() for results in runs.values() for run in results), default=0.0)


def _scores(
    ran: Mapping[str, Mapping[float, Sequence[RunResult]]], limit: float, unit: str
) -> dict[str, dict[str, float]]:
    return {
        name: {f"{rate:g}": round(tuning_score(results, limit, unit), 4) for rate, results in runs.items()}
        for name, runs in ran.items()
    }


def _result(directory: Path, job: Job) -> RunResult:
    return read_result(directory / RUNS / job.slug, job.seed)


def _check_same_problems(directory: Path, jobs: Sequence[Job]) -> None:
    """Refuse to compare runs of one seed on different problems, as those of data that changed in between."""
    first: dict[tuple[Any, ...], tuple[str, str]] = {}
    for job in jobs:
        resolved = read_json(directory / RUNS / job.slug / CONFIG)["resolved"]
        own = (job.settings.data, job.settings.split, job.settings.size)  # an arm may train on data of its own
        for kind, key in (("held_out_fingerprint", ()), ("data_fingerprint", own)):
            found = resolved.get(kind, "made by an older version of dopr")
            known, slug = first.setdefault((kind, job.seed, *key), (found, job.slug))
            if found != known:
                what = "evaluated" if kind == "held_out_fingerprint" else "trained"
                raise RunError(
                    f"{directory / RUNS}: {slug} and {job.slug} were {what} on different problems: the data, or how problems are held out, "
                    "changed between them. Give a new --output."
                )


def _reference(settings: CompareSettings, arms: Sequence[Arm]) -> str:
    names = list(dict.fromkeys(arm.family for arm in arms))
    if settings.reference is None:
        return next((name for name in ("uniform", "random-one") if name in names), names[0])
    if settings.reference not in names:
        raise ConfigError(f"The reference {settings.reference!r} is none of the arms: {', '.join(names)}.")
    return settings.reference


def _directory(settings: CompareSettings, common: dict[str, Any]) -> Path:
    """The comparison's directory, new or made by a comparison with the same common settings."""
    directory = Path(settings.output or "comparison")
    stored = directory / SETTINGS
    mine = asdict(build(TrainSettings, common))
    if stored.exists():
        # A setting that did not exist yet had its default's effect.
        theirs = _jsonable(asdict(TrainSettings())) | read_json(stored)
        changed = [f"{k}: {theirs.get(k)!r} then, {v!r} now" for k, v in _jsonable(mine).items() if theirs.get(k) != v]
        if changed:
            raise RunError(
                f"{directory} holds a comparison with other settings ({'; '.join(changed)}). Give another --output; arms, "
                "seeds and learning rates may be added to this one."
            )
    elif directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise RunError(f"The output {directory} is not an empty directory. Give a new one as --output.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"The output {directory} cannot be made: {error.strerror}. Give another --output.") from None
    write_json(stored, mine)
    return directory


def _jsonable(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _tuning_text(settings: CompareSettings, arms: Sequence[Arm]) -> str:
    sizes = {len(arm.rates) for arm in arms}
    if not settings.tuning_seeds or sizes == {1}:
        return "not tuned."
    return (
        f"{' or '.join(map(str, sorted(sizes)))} per arm on {settings.tuning_seeds} other seed(s), the highest mean accuracy "
        "over the arm's budget (area under the curve) is taken; *edge* marks a choice at the end of its grid."
    )


def _write(directory: Path, summary: dict[str, Any], meta: dict[str, Any], results: dict[str, list[RunResult]]) -> None:
    runs = {name: [r.as_dict() for r in rows] for name, rows in results.items()}
    write_json(directory / RESULTS, {"summary": summary, "meta": meta, "runs": runs})
    figure: str | None = FIGURE
    try:
        draw(results, summary["reference"], directory / FIGURE)
    except ImportError:
        figure = None  # without matplotlib the page has its table only
    write_lines(directory / PAGE, markdown(summary, meta, figure).rstrip("\n").split("\n"))
