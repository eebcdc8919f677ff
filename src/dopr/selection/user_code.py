"""What users name as ``module:name``: strategies here, reward functions in ``dopr.tasks.rewards``."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from dopr.errors import DoprError, suggest


def import_named(spec: str, *, noun: str, kind: str, error: type[DoprError]) -> Any:
    """The object that ``module:name`` stands for, from the working directory or the import path.

    Args:
        spec: What the user wrote.
        noun: What it is to be, for messages: ``reward``, ``strategy``.
        kind: What the name names, for messages: ``function``, ``Class``.
        error: Class of the errors raised.

    Raises:
        DoprError: As ``error``: not of that form, no such module, a module that cannot be imported, no such name in it.
    """
    module_name, _, name = spec.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or module_name.endswith(".py") or not name.isidentifier():
        raise error(
            f"The {noun} {spec!r} is not of the form module:{kind}. Write the module as Python imports it, without .py "
            "and with dots for slashes."
        )
    here = str(Path.cwd())
    sys.path.insert(0, here)  # the installed command does not look where it is run, people do
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (module_name + ".").startswith(missing.name + "."):
            raise error(
                f"The {noun} {spec!r} names the module {missing.name!r}, which is neither installed nor in {here}."
            ) from None
        raise error(f"The module of the {noun} {spec!r} needs {missing.name!r}, which is not installed.") from missing
    except Exception as broken:
        raise error(
            f"The module of the {noun} {spec!r} cannot be imported: {type(broken).__name__}: {broken}."
        ) from broken
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)  # for what the module imports later; last, so that it hides no installed package
    if not hasattr(module, name):
        known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise error(f"The module {module_name!r} has no {kind} {name!r}. {suggest(name, known)}")
    return getattr(module, name)
