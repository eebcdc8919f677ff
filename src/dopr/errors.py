"""Every error dopr raises on purpose, in one place.

Each is also an error of the standard library, so callers can catch either. A message says what came, why it cannot be,
and what to do; the command line prints it alone and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DoprError(Exception):
    """A mistake of the user's that dopr can explain."""


class ConfigError(DoprError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(DoprError, ValueError):
    """A problem file that cannot be used as it is."""


class NoSplitError(DataError):
    """A source with splits that has not the one asked for."""


class RewardError(DoprError, ValueError):
    """A reward function or verifier that cannot be used as it is."""


class ModelError(DoprError, ValueError):
    """A model path or name that does not give a usable policy."""


class RunError(DoprError, RuntimeError):
    """A run directory, or a running run, that cannot go on."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Sentence that names the closest of ``known`` to ``name``, then all of them, or of very many the closest few."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=5, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    if len(names) > 60:
        return f"{hint}Close to it: {', '.join(close)}." if close else "Nothing is called like it."
    return f"{hint}Known: {', '.join(names)}."


def half_pair(text: str) -> bool:
    """Whether half of a surrogate pair stands in ``text``: JSON can hold it, UTF-8 and tokenizers cannot."""
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)
