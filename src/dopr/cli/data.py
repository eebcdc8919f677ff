"""``dopr data``: look at problem files before training on them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dopr.tasks.data_check import DataCheck


@click.group()
def data() -> None:
    """Look at problem files."""


@data.command()
@click.argument("file")
@click.option("--against", metavar="FILE", help="Problems that must not be among them, such as an evaluation set.")
@click.option("--against-split", metavar="SPLIT", help="Its split, where it has several; default: test.")
@click.option("--reward", default="auto", show_default=True, help="Verifier that every gold must pass.")
@click.option("--split", default="train", show_default=True, help="Split, for sources that have several.")
@click.option("--prompt-column", help="Column with the prompt; default: found by its usual names.")
@click.option("--answer-column", help="Column with the gold answer; default: found by its usual names.")
@click.option("--id-column", help="Column with the ids; default: found by its usual names.")
@click.option(
    "--max-characters", default=20_000, show_default=True, type=click.IntRange(1), help="Longest prompt allowed."
)
@click.option(
    "--overlap", default=0.6, show_default=True, type=click.FloatRange(0, 1, min_open=True),
    help="Share of the other problem's word 5-grams that makes a near-duplicate.",
)  # fmt: skip
@click.option(
    "--show", default=10, show_default=True, type=click.IntRange(0), help="Rows named per kind of finding; 0 = all."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead.")
def check(
    file: str, against: str | None, against_split: str | None, reward: str, split: str, prompt_column: str | None, answer_column: str | None,
    id_column: str | None, max_characters: int, overlap: float, show: int, as_json: bool,
) -> None:  # fmt: skip
    """Check a problem file: ids, repeats, golds against their own verifier, lengths, overlap with another file.

    Exit code 0 where nothing is wrong, 1 where rows are (each is named), 2 where the file cannot be read.
    """
    from dopr.tasks import data_check
    from dopr.tasks.columns import Names

    def progress(stage: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"{stage} ...", err=True)

    result = data_check.check_data(
        file, against=against, against_split=against_split, reward=reward, names=Names(prompt=prompt_column, answer=answer_column, ident=id_column),
        split=split, most_characters=max_characters, least_overlap=overlap, progress=progress,
    )  # fmt: skip
    click.echo(data_check.as_json(result) if as_json else _text(result, show))
    sys.exit(1 if result.findings else 0)


def _text(result: DataCheck, show: int) -> str:
    from dopr.tasks.data_findings import KINDS

    columns = ", ".join(f"{role} {name!r}" for role, name in result.columns.items() if name)
    lengths = result.prompt_characters
    lines = [
        f"{result.file}: {result.rows:,} rows; {columns}",
        f"prompts: {lengths['least']:,} to {lengths['most']:,} characters, median {lengths['median']:,}",
    ]
    if result.reward:
        taken = f"; answer taken from {_counts(result.extraction)}" if result.extraction else ""
        unknown = f"not checked, since the form that {result.reward} wants is not known"
        lines.append(f"golds: {f'verifier {result.reward}' if result.verified else unknown}{taken}")
        if result.reading:
            lines.append(f"read as {_counts(result.reading)}")
    if result.against:
        other = result.against
        part = f", split {other['split']}" if "split" in other else ""
        lines.append(
            f"{other['file']}{part}: {other['rows']:,} rows; {other['same']:,} are here whole, {other['near']:,} nearly"
        )
    for kind, count in result.counts.items():
        lines.append(f"\n{count:,} {KINDS[kind]}:")
        found = [f for f in result.findings if f.kind == kind]
        shown = found[: show or None]
        lines += [f"  {f.where}{f' ({f.id})' if f.id else ''}: {f.text}" for f in shown]
        if len(shown) < count:
            lines.append(f"  and {count - len(shown):,} more (--show 0 names all)")
    lines.append("" if result.findings else "\nNothing wrong found.")
    return "\n".join(lines).rstrip()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
