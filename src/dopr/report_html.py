"""The look of the report and its small pieces of HTML. Every text that comes from a run goes through :func:`escape`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
DASH = "\u2013"

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f5f6f7; --ink: #1d2327; --muted: #5d6872;
  --line: #d9dee3; --accent: #1f6feb; --second: #8a6bbf; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --card: #1e2429; --ink: #e4e8eb; --muted: #9aa5af;
  --line: #353d45; --accent: #6aa5ff; --second: #b79ae6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; }
.muted, figcaption, footer { color: var(--muted); font-size: .92rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .7rem; margin: 1.4rem 0; }
.tile { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.35; white-space: nowrap; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { text-align: right; padding: .32rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-weight: 600; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 7rem;
  padding-left: 0; }
.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: inherit !important; }
.notice { border-left: .25rem solid #d1495b; background: var(--card); padding: .5rem .9rem; margin: .8rem 0; }
.key i { display: inline-block; width: .75em; height: .75em; border-radius: .2em; margin-right: .4em; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--accent); }
pre { background: var(--card); padding: .9rem; border-radius: .5rem; overflow-x: auto; font-size: .83rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem; }
"""


def clean(value: Any, limit: int | None = None) -> str:
    """Text that can be written and shown: no surrogates, control or direction characters; at most ``limit`` long."""
    text = _UNSHOWABLE.sub("\ufffd", str(value))
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "\u2026"


def escape(value: Any, limit: int | None = None) -> str:
    """Text safe inside an element or a quoted attribute."""
    return html.escape(clean(value, limit))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, text_columns: Sequence[int] = ()) -> str:
    """Table of escaped cells; the first column and ``text_columns`` are left-aligned."""

    def cell(tag: str, position: int, value: Any) -> str:
        return f"<{tag}{' class=text' if position in text_columns else ''}>{escape(value, 300)}</{tag}>"

    top = "".join(cell("th", i, value) for i, value in enumerate(head))
    body = "".join(f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Headline numbers: (number, what it is)."""
    inner = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in pairs
    )
    return f'<div class="tiles">{inner}</div>'


def figure(svg: str | None, caption: str) -> str:
    """A drawn figure with its caption, or the caption's absence where nothing was drawn. ``caption`` is HTML."""
    return "" if svg is None else f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def page(title: str, body: str) -> str:
    """The whole document; nothing in it is fetched from elsewhere."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def number(value: Any) -> float | None:
    """The value if it is a real number, else None: a log line may hold anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < float("inf") else None  # NaN compares False


def count(value: Any) -> str:
    """A whole number with thousands separators."""
    n = number(value)
    return DASH if n is None else f"{n:,.0f}"


def percent(value: Any) -> str:
    """A share as a percentage."""
    x = number(value)
    return DASH if x is None else f"{x:.1%}"


def duration(value: Any) -> str:
    """Seconds in the two largest fitting units."""
    seconds = number(value)
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def with_interval(part: Any, form: str = ".1%") -> str:
    """``estimate [low, high]`` of a mapping with an estimate or an accuracy; a plain number alone; else a dash."""
    if not isinstance(part, Mapping):
        value = number(part)
        return DASH if value is None else format(value, form)
    value = number(part.get("estimate", part.get("accuracy")))
    low, high = number(part.get("low")), number(part.get("high"))
    if value is None:
        return DASH
    return format(value, form) if low is None or high is None else f"{value:{form}} [{low:{form}}, {high:{form}}]"
