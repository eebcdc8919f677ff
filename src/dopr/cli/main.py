"""``dopr``: parse the command line first, import torch later."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dopr import __version__
from dopr.cli.bound import options as bound_options
from dopr.cli.data import data
from dopr.cli.ignored import OF_ONE_RUN
from dopr.cli.options import read_settings, settings_options
from dopr.config import CompareSettings, EvalSettings, TrainSettings
from dopr.errors import DoprError

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="dopr")
def cli() -> None:
    """Reinforcement learning for reasoning models, an order of magnitude cheaper."""


@cli.command()
@settings_options(TrainSettings)
def train(config_file: str | None, **flags: Any) -> None:
    """Train a policy with verifiable rewards, choosing the problems worth rolling out.

    With no options: the packaged tiny policy on a packaged world, on the CPU, in about two minutes.
    """
    stored: dict[str, Any] = {}
    if flags["resume"]:
        from dopr.runlog import read_config

        stored = read_config(Path(flags["resume"]))["settings"]
    settings = read_settings(TrainSettings, config_file, flags, stored)
    from dopr.cli.train import run_command

    run_command(settings)


@cli.command("eval")
@settings_options(EvalSettings)
def eval_(config_file: str | None, **flags: Any) -> None:
    """Measure a policy: greedy or avg@n, unbiased pass@k and maj@n, with intervals over problems."""
    settings = read_settings(EvalSettings, config_file, flags)
    from dopr.cli.eval import run_command

    run_command(settings)


@cli.command()
@settings_options(CompareSettings, leave_out=OF_ONE_RUN)
def compare(config_file: str | None, **flags: Any) -> None:
    """Compare strategies at an equal budget: tuned alike, on fresh seeds, with intervals; table, page and figure.

    Stopped at any time, the same command goes on where it stopped.
    """
    settings = read_settings(CompareSettings, config_file, flags)
    from dopr.cli.compare import run_command

    run_command(settings)


@cli.command()
@click.argument("trace", metavar="TRACE")
@click.option(
    "--strategies", multiple=True, default=("all",), help="all, or names, comma-separated or repeated. [default: all]"
)
@click.option("--seeds", default=5, show_default=True, help="Runs per strategy.")
@click.option("--budget", default="rollouts=4000", show_default=True, help="Rollouts per run, as rollouts=N.")
@click.option("--group-size", type=int, help="Rollouts per group; default: the trace's.")
@click.option("--prompts-per-round", type=int, help="Prompts per round; default: the strategy's.")
@click.option("--candidates", type=int, help="Candidate batch; default: the smaller of 128 and the pool.")
@click.option("--output", help="JSON file for the figures.")
def replay(trace: str, **flags: Any) -> None:
    """Run strategies against a recorded trace, without a model: a run directory, or JSON {id: [accuracy per visit]}."""
    from dopr.cli.replay import run_replay

    run_replay(trace, **flags)


@cli.command()
@click.argument("trace", metavar="TRACE")
@click.option(
    "--by", default="std", show_default=True, help="Ranking: std (1-shot RLVR), limr, variance or disagreement."
)
@click.option("--top", default=16, show_default=True, help="How many problems.")
@click.option("--data", help="The problems that the ids name; default: those of the run.")
@click.option("--prompt-column", help="Column of --data with the prompt; default: found by its usual names.")
@click.option("--answer-column", help="Column of --data with the gold answer; default: found by its usual names.")
@click.option("--id-column", help="Column of --data with the ids; default: found by its usual names.")
@click.option("--output", help="Problem file (.jsonl) to write, best first.")
def rank(trace: str, **flags: Any) -> None:
    """Rank problems by what they taught: from a run directory, or JSON {id: [accuracy per visit]}."""
    from dopr.cli.replay import run_rank

    columns = {name: flags.pop(name) for name in ("prompt_column", "answer_column", "id_column")}
    run_rank(trace, **flags, columns=columns)


@cli.command()
@click.argument("run_dir", metavar="RUN")
def report(run_dir: str) -> None:
    """Write the HTML report of a run directory again."""
    from dopr.report import write_report

    click.echo(f"Report: {write_report(run_dir)}")


@cli.command()
@bound_options
def bound(**flags: Any) -> None:
    """Lower bounds on updates, rollouts and problems: from numbers, or beside what a finished run used.

    Exit code 1 if a run beats a bound. What the theorems say: docs/theory.md.
    """
    from dopr.cli.bound import run_command

    sys.exit(run_command(flags))


cli.add_command(data)


def main() -> None:
    """Entry point: a user's mistake ends with one clear paragraph and exit code 2."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except DoprError as error:
        click.echo(f"dopr: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # a path that cannot be read or written; where more is known a DoprError says it
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        click.echo(f"dopr: {what}. Check that the path exists and may be written.", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("dopr: interrupted.", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
