"""Every `dopr` command in the documents names a command and options that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@cache
def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dopr", *command, "--help"], capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else ""


def commands(text: str) -> list[tuple[tuple[str, ...], list[str]]]:
    """The commands in a page's code, with their options."""
    found = []
    for code in [*re.findall(r"```\w*\n(.*?)```", text, re.S), *re.findall(r"`([^`\n]+)`", text)]:
        for line in code.replace("\\\n", " ").splitlines():
            match = re.match(r"\s*(?:\w+=\S+\s+)*dopr ((?:data )?[a-z]+)\b(.*)", line)
            if match and match[1] != "on":  # "dopr on world:...", the title of an output that is shown
                found.append((tuple(match[1].split()), re.findall(r"(?<!\S)--[a-z][a-z-]*", match[2])))
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_in_the_documents_exist(page: Path) -> None:
    for command, options in commands(page.read_text(encoding="utf-8")):
        text = help_of(*command)
        assert text, command
        for option in options:
            # A pair of switches is listed as --chat / --no-chat.
            assert re.search(rf"{option}(?![a-z-])", text), (command, option)
