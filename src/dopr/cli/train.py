"""``dopr train`` on a terminal."""

from __future__ import annotations

from rich.console import Console

from dopr.cli.ignored import refuse_ignored, refuse_unmeasured
from dopr.config import TrainSettings
from dopr.train.prepare import prepare, run_directory


def run_command(settings: TrainSettings) -> None:
    """Check, train, and print what was reached and spent."""
    console = Console()
    if settings.resume is None:  # what is stored cannot be taken back
        refuse_ignored(settings, [source for source in (settings.data, settings.eval_data) if source is not None])
    prepared = prepare(settings)
    if settings.resume is None:
        refuse_unmeasured(settings, prepared)
    run_directory(settings)  # refuses a used one before anything heavy is imported
    from dopr.quiet import quiet_libraries, uncollected

    console.print(f"dopr {settings.strategy}: {settings.model} on {settings.data}", highlight=False, markup=False)
    with uncollected():
        quiet_libraries()
        from dopr.cli.show import TrainProgress, train_table
        from dopr.train.run import run

    with TrainProgress(console) as progress:
        outcome = run(
            prepared,
            progress=progress,
            say=lambda text: console.print(text, highlight=False, style="dim", markup=False),
        )
    summary = outcome.summary
    console.print(train_table(summary))
    if "difference" in summary:
        d = summary["difference"]
        console.print(
            f"Change: {d['estimate']:+.1%} [{d['low']:+.1%}, {d['high']:+.1%}] on the held-out problems.",
            highlight=False,
        )
    if summary["status"] != "finished":
        console.print(f"Stopped: {summary['reason']}", highlight=False, markup=False)
    counts = list(summary["rewards"].values())
    if unscorable := sum(c.get("unscorable", 0) for c in counts):
        total = unscorable + sum(c.get("scored", 0) for c in counts)
        console.print(
            f"{unscorable:,} of {total:,} rewards could not be given; they were left out, not counted as wrong."
        )
    if summary["skipped_updates"]:
        console.print(f"{summary['skipped_updates']:,} updates with a broken loss or gradient were skipped.")
    saved = any(outcome.directory.glob("checkpoints/checkpoint-*/dopr_seal.json"))
    if summary["status"] != "finished" and saved:
        console.print(
            f"Continue: dopr train --resume {outcome.directory}", highlight=False, soft_wrap=True, markup=False
        )
    console.print(f"Policy: {outcome.directory}/{summary['checkpoint']}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"Report: {outcome.report}", highlight=False, soft_wrap=True, markup=False)
