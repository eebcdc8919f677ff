"""What is imported when: the selection core is light, and the command line parses before anything heavy loads."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
from pathlib import Path

import pytest

import dopr
from dopr.cli.main import cli
from dopr.quiet import uncollected

SOURCE = Path(dopr.__file__).parent
HEAVY = ("torch", "transformers", "datasets", "trl", "accelerate", "pandas", "pyarrow", "matplotlib", "math_verify")


def loaded_after(code: str) -> set[str]:
    """Top-level modules in sys.modules after ``code`` has run in a new interpreter."""
    script = f"{code}\nimport sys\nprint('MODULES', *sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("MODULES ")[1].split())


def test_import_dopr_loads_nothing_heavy() -> None:
    assert not loaded_after("import dopr") & {*HEAVY, "numpy", "click", "rich", "yaml"}


def test_the_selection_core_and_the_simulator_need_numpy_and_the_standard_library_only() -> None:
    bare = loaded_after("import numpy, numpy.random")
    loaded = loaded_after("import dopr.selection, dopr.simulate, dopr.budget, dopr.runlog, dopr.errors, dopr.metrics")
    third_party = loaded - bare - set(sys.stdlib_module_names) - {"dopr"}
    assert not {m for m in third_party if not m.startswith("_")}


def test_the_names_promised_at_the_top_exist_and_stay_light() -> None:
    loaded = loaded_after("from dopr import Pick, Review, Selector, SelectorConfig, make_selector")
    assert not loaded & {*HEAVY, "click"}
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        dopr.Nothing  # noqa: B018 - the access is the test


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in sorted(cli.commands)), ["--version"]])
def test_help_loads_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = f"import sys; from dopr.cli.main import main; sys.argv = {['dopr', *arguments]!r}\ntry: main()\nexcept SystemExit as e: assert not e.code"
    assert not loaded_after(code) & {*HEAVY, "numpy"}


def test_selection_imports_nothing_of_dopr_but_itself_and_errors() -> None:
    found = {}
    for path in sorted((SOURCE / "selection").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {(path.name, name): node for name in names if name.startswith("dopr")}
    assert found
    assert {name for _, name in found if not name.startswith("dopr.selection") and name != "dopr.errors"} == set()


def test_no_module_of_the_package_loads_torch_when_imported_save_the_trainer_itself() -> None:
    """Everything but the TRL subclass and what only it uses must import where torch is not installed."""
    trainer_only = {
        "trainer", "round", "chunk", "rows", "advantages", "callbacks", "config", "features", "probe", "replayer", "resume", "watching",
        "forward", "untried", "base_policy", "tickets", "logged", "captured",
    }  # fmt: skip
    names = [
        ".".join(("dopr", *path.relative_to(SOURCE).with_suffix("").parts))
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py", "preload.py")  # preload exists to import everything
        and not (path.parent.name == "train" and path.stem in {*trainer_only, "run"})
    ]
    assert len(names) > 20
    assert not loaded_after("\n".join(f"import {name}" for name in names)) & set(HEAVY)


def test_imports_without_collection_leave_the_collector_as_it_was() -> None:
    before = gc.get_freeze_count()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
        with pytest.raises(ModuleNotFoundError), uncollected():
            import no_such_module  # type: ignore[import-not-found]  # noqa: F401
        assert gc.isenabled()
        gc.disable()
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
