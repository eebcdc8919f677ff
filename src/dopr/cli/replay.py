"""``dopr replay`` and ``dopr rank`` on a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from dopr.budget import Budget
from dopr.config import TrainSettings
from dopr.config_layers import build
from dopr.errors import ConfigError, RunError
from dopr.rank import rank
from dopr.replay import ReplayRow, mixed_share, replay, replay_row
from dopr.runlog import CONFIG, EVENTS, read_config, write_json, write_lines
from dopr.selection.registry import STRATEGIES, check_strategy
from dopr.trace import Trace, read_trace

CONTROL = "random-one"


def run_replay(
    source: str, *, strategies: tuple[str, ...], seeds: int, budget: str, group_size: int | None,
    prompts_per_round: int | None, candidates: int | None, output: str | None,
) -> None:  # fmt: skip
    """Replay every strategy, print the table, write JSON if asked."""
    limit = Budget.parse(budget)
    if limit.unit != "rollouts":
        raise ConfigError(f"A replay spends rollouts only, so its budget cannot be {budget!r}. Give rollouts=N.")
    if limit.limit < 1:
        raise ConfigError(f"The budget {budget!r} is less than one rollout. Give rollouts=N with N of at least 1.")
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}; it must be at least 1.")
    names = [n.strip() for text in strategies for n in text.split(",") if n.strip()]
    names = list(dict.fromkeys(n for name in names for n in ([*STRATEGIES] if name == "all" else [name])))
    for name in names:
        check_strategy(name)
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise RunError(f"The folder of {output} does not exist. Make it first, or give another --output.")
    if output is not None and Path(output).is_dir():
        raise RunError(f"The output {output} is a directory. Give a file, such as {output}/replay.json.")
    if output is not None and Path(output).exists():
        raise RunError(f"{output} exists already. Give another --output, or remove it.")
    trace = read_trace(source)
    console = Console()
    if not trace.fits:
        console.print(
            f"[yellow]Warning:[/] no group size explains the recorded rates, so groups of {trace.group_size} are assumed: every rate is "
            "rounded to as many, and a mixed group stays mixed.", highlight=False,
        )  # fmt: skip

    def runs_of(name: str) -> list[Any]:
        return [
            replay(trace, name, seed=seed, rollouts=int(limit.limit), group_size=group_size,
                   prompts_per_round=prompts_per_round, candidates=candidates)
            for seed in range(seeds)
        ]  # fmt: skip

    control = runs_of(CONTROL)
    quiet = not console.is_terminal
    rows = [
        replay_row(name, control if name == CONTROL else runs_of(name), control)
        for name in track(names, "replaying", console=console, transient=True, disable=quiet)
    ]
    rows.sort(key=lambda row: -row.per_hundred.estimate)
    size = trace.group_size if group_size is None else group_size
    mixed = mixed_share(trace, size)
    at_random, at_best = float(mixed.mean()), float(mixed.max(axis=1).mean())
    console.print(_table(rows, trace, size, int(limit.limit), seeds))
    console.print(
        f"Ceiling: of whole groups of {size} drawn from this record {at_random:.0%} are informative at random and {at_best:.0%} at best, so "
        f"with whole groups no selector gains more than {at_best / at_random:.2f}x over one random prompt here." if at_random else
        f"Ceiling: no whole group of {size} drawn from this record is informative; only rollouts beyond the recorded ones can be.",
        highlight=False,
    )  # fmt: skip
    console.print(
        "A replay shows who finds informative groups and predicts success, not who teaches most: the recorded policy "
        "improves as it did, whatever is picked.", highlight=False, style="dim",
    )  # fmt: skip
    if output is not None:
        stored = [_plain(asdict(row)) for row in rows]
        write_json(Path(output), {
            "trace": trace.source, "budget": budget, "seeds": seeds, "group_size": size,
            "informative_at_random": at_random, "informative_at_best": at_best, "strategies": stored,
        })  # fmt: skip
        console.print(f"{output}", highlight=False, soft_wrap=True, markup=False)


def _table(rows: list[ReplayRow], trace: Trace, size: int, budget: int, seeds: int) -> Table:
    table = Table(
        title=f"{len(trace.ids)} prompts of {escape(Path(trace.source).name)}, groups of {size}, {budget:,} rollouts, "
        f"{seeds} seed{'s' * (seeds != 1)}",
        title_justify="left",
    )  # fmt: skip
    table.add_column("strategy")
    for name in ("per 100", "x random-one", "mixed", "seen", "Brier", "pooled", "ECE"):
        table.add_column(name, justify="right")
    for row in rows:
        g = row.gain
        gain = "-" if np.isnan(g.estimate) else f"{g.estimate:.2f}"
        if seeds > 1 and not np.isnan(g.estimate):  # one seed says nothing of the others
            gain += f" [{g.low:.2f}, {g.high:.2f}]"
            gain += " =" if row.strategy != CONTROL and g.low <= 1 <= g.high else ""
        table.add_row(
            escape(row.strategy), f"{row.per_hundred.estimate:.1f}", gain, f"{row.informative:.0%}", f"{row.coverage:.0%}",
            *("-" if v is None else f"{v:.3f}" for v in (row.brier, row.brier_pooled, row.calibration_error)),
        )  # fmt: skip
    table.caption = (
        "per 100: informative groups per hundred rollouts, and beside random-one with 95 % intervals over seeds (= no difference shown). "
        "mixed: share of informative groups. seen: share of prompts picked. Brier: of the predicted success, beside that of "
        "the running mean (pooled). ECE: expected calibration error."
    )
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.round(value, 4).tolist()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def run_rank(
    source: str,
    *,
    by: str,
    top: int,
    data: str | None,
    output: str | None,
    columns: Mapping[str, str | None] | None = None,
) -> None:
    """Print the best problems; write them as a problem file if asked."""
    if top < 1:
        raise ConfigError(f"top is {top}; it must be at least 1.")
    trace = read_trace(source)
    ranked = rank(trace, by)
    if len(ranked) < min(top, len(trace.ids)):
        raise ConfigError(
            f"Ranking by {by} needs prompts with at least two visits, and {source} has {len(ranked)} of them; top is {top}. Give --top "
            f"{len(ranked)}, or rank by variance."
        )
    best = ranked[:top]
    console = Console()
    tied = [score for _, score in ranked if np.isclose(score, best[-1][1], rtol=0, atol=1e-12)]
    if len(ranked) > top and np.isclose(ranked[top][1], best[-1][1], rtol=0, atol=1e-12):
        console.print(
            f"[yellow]Warning:[/] the cut falls among {len(tied)} prompts that all score {tied[0]:.3f}; which of them are shown is the order "
            "of the record.", highlight=False,
        )  # fmt: skip
    table = Table(title=f"{len(best)} of {len(trace.ids)} prompts by {by}", title_justify="left")
    table.add_column("id")
    for name in (by, "visits", "first", "last"):
        table.add_column(name, justify="right")
    for prompt, score in best:
        visits = trace.visits[prompt]
        table.add_row(
            escape(prompt), f"{score:.3f}", str(len(visits)), f"{visits[0].rate:.2f}", f"{visits[-1].rate:.2f}"
        )
    console.print(table)
    if output is not None:
        _write_problems(source, [prompt for prompt, _ in best], data, Path(output), columns or {})
        console.print(f"{output}", highlight=False, soft_wrap=True, markup=False)


def _write_problems(
    source: str, wanted: list[str], data: str | None, output: Path, columns: Mapping[str, str | None]
) -> None:
    from dopr.tasks.problems import load_problems

    console = Console(stderr=True)

    def on_bad(text: str) -> None:
        console.print(f"Left out: {text}", highlight=False, soft_wrap=True, markup=False)

    run = Path(source).parent if Path(source).name == EVENTS else Path(source)
    if data is None and (run / CONFIG).exists():
        s = build(TrainSettings, read_config(run)["settings"])
        problems = load_problems(
            s.data, prompt_column=s.prompt_column, answer_column=s.answer_column, id_column=s.id_column,
            split=s.split or "train", size=s.size, seed=s.seed, require_answer=False, on_bad=on_bad,
        )  # fmt: skip
        if s.data.startswith("gym:"):  # splits that share prompts are dealt anew, and what was trained on is of both
            from dopr.train.held_out import hold_out

            problems = hold_out(s, problems)[0]
    elif data is not None:
        problems = load_problems(
            data, require_answer=False, on_bad=on_bad, prompt_column=columns.get("prompt_column"),
            answer_column=columns.get("answer_column"), id_column=columns.get("id_column"),
        )  # fmt: skip
    else:
        raise ConfigError(f"{source} has ids but no problems. Give the problems they name with --data.")
    by_id = {p.id: p for p in problems}
    if missing := [prompt for prompt in wanted if prompt not in by_id]:
        raise ConfigError(
            f"{len(missing)} of the {len(wanted)} ranked prompts, such as {missing[0]!r}, are not in "
            f"{data or 'the data of the run'}, whose ids look like {next(iter(by_id))!r}. Give the problems of this trace."
        )
    if output.exists():
        raise RunError(f"{output} exists already. Give another --output, or remove it.")
    lines = [
        json.dumps(
            {**p.extra, "id": p.id, "prompt": p.prompt} | ({} if p.answer is None else {"answer": p.answer}),
            ensure_ascii=False,
            default=str,
        )
        for p in (by_id[prompt] for prompt in wanted)
    ]
    try:
        write_lines(output, lines)
    except OSError as error:
        raise RunError(f"{output} cannot be written: {error.strerror}. Give another --output.") from None
