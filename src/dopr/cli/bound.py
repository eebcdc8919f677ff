"""``dopr bound``: what no run can beat, from numbers or beside what a finished run used."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from dopr.errors import ConfigError

if TYPE_CHECKING:
    from dopr.theory import SelectionCeiling

_NUMBERS = (
    "p0", "target", "group", "prompts", "kl", "strategies", "p_plus", "p_minus", "frequencies", "rates", "world", "delta",
)  # fmt: skip


def options(function: Any) -> Any:
    """The command's options, in the order of its help."""
    rows: list[tuple[str, dict[str, Any]]] = [
        ("--run", {"metavar": "DIR", "help": "Finished run: bounds from what it measured, beside what it used."}),
        ("--p0", {"type": float, "help": "Mean success of the base policy; default: the mean of the rates."}),
        ("--target", {"type": float, "help": "Mean success to reach."}),
        ("--group", {"type": int, "help": "Rollouts per group G; default 8."}),
        ("--prompts", {"type": int, "help": "Groups per update; default 1."}),
        ("--kl", {"type": float, "help": "E_x KL(new || old) per update in nats: gives T2."}),
        ("--strategies", {"type": float, "help": "Latent strategies M per skill: gives T3."}),
        ("--p-plus", {"type": float, "help": "Success probability of the right strategy; default 1."}),
        ("--p-minus", {"type": float, "help": "Success probability of a wrong strategy; default 0."}),
        ("--frequencies", {"metavar": "LIST", "help": "Share of each skill, such as .5,.3,.2, or 1/16x16: gives T4."}),
        ("--rates", {"metavar": "LIST", "help": "Base success of each skill, such as .6,.1,.01x4: gives T5."}),
        ("--world", {"metavar": "NAME", "help": "Skills, shares, rates and strategies of a packaged world."}),
        ("--delta", {"type": float, "help": "Allowed probability of failure; default 0.05."}),
        ("--json", {"is_flag": True, "help": "Print JSON instead of a table."}),
    ]
    for flag, settings in reversed(rows):
        name = {"--json": "as_json", "--kl": "kl"}.get(flag, flag.lstrip("-").replace("-", "_"))
        function = click.option(flag, name, **settings)(function)
    return function


def run_command(flags: dict[str, Any]) -> int:
    """Print bounds; 1 if a run beats one, else 0.

    Raises:
        ConfigError: Numbers that are missing, cannot be read or lie outside their range.
        RunError: The directory is not a run's.
    """
    as_json = flags.pop("as_json")
    given = {name: value for name, value in flags.items() if value is not None}
    if "run" in given:
        if clash := [name for name in _NUMBERS if name in given]:
            flags_ = ", ".join("--" + name.replace("_", "-") for name in clash)
            raise ConfigError(f"--run takes its numbers from the run; leave out {flags_}.")
        return _from_run(given["run"], as_json)
    return _from_numbers(given, as_json)


def _from_numbers(given: dict[str, Any], as_json: bool) -> int:
    from dopr.theory import lower_bound

    if "target" not in given:
        raise ConfigError(
            "dopr bound needs --target with --p0, --rates or --world, or else --run. See dopr bound --help."
        )
    names = {"group": "group_size", "kl": "kappa"}
    values = {names.get(name, name): value for name, value in given.items() if name != "world"}
    for name in ("frequencies", "rates"):
        if name in values:
            values[name] = numbers(values[name], name)
    if "world" in given:
        values = _of_world(given["world"]) | values
    try:
        found = lower_bound(**values)
    except ValueError as error:
        raise ConfigError(f"{error}") from None
    if as_json:
        click.echo(
            json.dumps({"bounds": [dataclasses.asdict(b) for b in found.bounds], "binding": found.binding.theorem})
        )
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(
        title=f"Least to reach {values['target']:g}, if the assumptions hold",
        title_justify="left",
    )
    for column in ("theorem", "at least", "rollouts"):
        table.add_column(column, justify="left" if column == "theorem" else "right")
    for bound in found.bounds:
        mark = "*" if bound is found.binding else ""
        rollouts = "" if bound.rollouts is None else f"{bound.rollouts:,.0f}{mark}"
        table.add_row(f"{bound.theorem} {bound.name}", counted(bound.value, bound.unit), rollouts)
    console.print(table)
    for bound in found.bounds:
        console.print(f"{bound.theorem}: {bound.sentence} [dim]Assumes: {bound.assumes}.[/]", highlight=False)
    console.print(f"* {found.binding.theorem} asks for the most rollouts: it binds.", highlight=False)
    return 0


def _from_run(directory: str, as_json: bool) -> int:
    from dopr.report_bounds import run_bounds

    found = run_bounds(directory)
    beaten = [row for row in found.rows if row.beaten]
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return int(bool(beaten))
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title=f"{escape(directory)}: used against the least possible", title_justify="left")
    for column in ("theorem", "at least", "used", "used / bound"):
        table.add_column(column, justify="left" if column == "theorem" else "right")
    for row in found.rows:
        mark = " (binds)" if row.theorem == found.binding else ""
        table.add_row(
            f"{row.theorem} {row.name}{mark}", counted(row.bound, row.unit), f"{row.used:,.0f}", f"{row.ratio:,.1f}"
        )
    console.print(table)
    for row in found.rows:
        console.print(f"{row.theorem}: {row.sentence}", highlight=False, markup=False)
    if found.ceiling is not None and found.ceiling.random_share > 0:
        console.print(ceiling_text(found.ceiling, found.informative, found.probed), highlight=False)
    for text in found.left_out:
        console.print(f"Left out, {text}", highlight=False, style="dim", markup=False)
    for row in beaten:
        console.print(
            f"[bold red]The run beats {row.theorem}[/]: {row.used:,.0f} {row.unit} where at least {row.bound:,.0f} are needed. Either an "
            "assumption fails (docs/theory.md lists them) or something was measured wrongly.",
            highlight=False,
        )
    return int(bool(beaten))


def ceiling_text(ceiling: SelectionCeiling, informative: float | None, probed: int) -> str:
    """What choosing prompts could add: at the skills' measured rates, or, with ``probed`` above 0, among so many prompts alone."""
    had = "" if informative is None else f" This run: {informative:.0%}."
    if probed:
        return (
            f"Selection: of the {probed} probed prompts, at the base policy and as measured, a random one gives an informative group "
            f"{ceiling.random_share:.0%} of the time, the best {ceiling.best_share:.0%}. Of the other prompts and of later it says nothing.{had}"
        )
    return (
        f"Selection ceiling: at the success measured per skill, a random prompt gives an informative group {ceiling.random_share:.0%} of "
        f"the time, the best possible choice {ceiling.best_share:.0%}, so no selector gains more than {ceiling.gain:.2f}x over random.{had}"
    )


def counted(value: float, unit: str) -> str:
    """``1 group``, ``1,200 groups``."""
    return f"{value:,.0f} {unit.removesuffix('s') if value == 1 else unit}"


def numbers(text: str, name: str) -> list[float]:
    """``.5,.3`` or ``1/16x16`` as numbers; ``AxN`` is N times A.

    Raises:
        ConfigError: Something else.
    """
    out: list[float] = []
    for part in text.split(","):
        value, _, times = part.strip().partition("x")
        above, _, below = value.partition("/")
        try:
            count = int(times or 1)
            if count < 1:
                raise ValueError
            out += [float(above) / float(below or 1)] * count
        except (ValueError, ZeroDivisionError):
            raise ConfigError(
                f"--{name} is {text!r}; give numbers with commas between them, such as .5,.3,.2, or 1/16x16 for sixteen times 1/16."
            ) from None
    return out


def _of_world(name: str) -> dict[str, Any]:
    from dopr.tasks.tiny import measured_success
    from dopr.tasks.worlds import world_info

    info, measured = world_info(name), measured_success(name)
    one = info.skills[-1]  # every skill but a shared one has the same strategies
    return {
        "rates": [measured[skill.name].rate for skill in info.skills],
        "frequencies": [skill.frequency for skill in info.skills],
        "strategies": one.strategies, "p_plus": one.p_plus, "p_minus": one.p_minus,
    }  # fmt: skip
