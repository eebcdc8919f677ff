"""The run directory as a place: made or refused, locked while in use, and continued only as the same run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dopr.budget import Budget, Spent
from dopr.errors import DoprError, RunError
from dopr.runlog import EVENTS, SUMMARY, read_config, read_events, read_json, unused_aside
from dopr.train.checkpoint import differences, last_complete, unwritable
from dopr.train.state import STATE_FILE, load_state

CHECKPOINTS, FINAL = "checkpoints", "final"
#: Settings that a resumed run may change: they do not enter its choices, rewards or updates.
CHANGEABLE = frozenset(
    ("resume", "force", "output", "budget", "target", "evaluations", "probe", "save_every", "save_minutes", "warn_constant",
     "stop_constant", "stop_unscorable", "reward_timeout")
)  # fmt: skip


@contextlib.contextmanager
def in_use(directory: Path, *, keep: bool) -> Iterator[None]:
    """Make the run directory and keep other runs out of it; leave nothing behind if the run fails before its first round.

    Args:
        directory: Where the run writes.
        keep: Never remove it: it holds a run that is being resumed.

    Raises:
        RunError: It cannot be made or written, or another process trains in it.
    """
    made = [d for d in (directory, *directory.parents) if not d.exists()]
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".probe.tmp"  # a kill may leave it; the suffix marks what may be overwritten
        probe.touch()
        probe.unlink(missing_ok=True)
    with _locked(directory):
        try:
            with writing(directory):
                yield
        except BaseException:
            log = directory / EVENTS
            trained = log.exists() and any(e.get("kind") == "round" for e in read_events(directory))
            if not keep and not trained:
                _remove(directory, made)
            raise


def _remove(directory: Path, made: list[Path]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):  # a parent made for it that holds something else by now stays
        for parent in made[1:]:
            parent.rmdir()
    if not made:
        directory.mkdir(exist_ok=True)  # it was there before, empty


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write below ``directory`` into a RunError that says how to go on."""
    try:
        yield
    except DoprError:
        raise
    except Exception as error:
        reason = unwritable(error, directory)
        if reason is None:
            raise
        hint = "Make room or make it writable" if directory.exists() else "Give another --output"
        more = f", then: dopr train --resume {directory}" if (directory / EVENTS).exists() else ""
        raise RunError(f"The run directory {directory} cannot be written: {reason}. {hint}{more}.") from error


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's advisory lock; the kernel drops it with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        yield
        return
    if os.environ.get("RANK", "0") != "0":  # the first process of a distributed run holds it for all
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"Another process is training in {directory}. Wait for it, stop it, or give another --output."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


# -- going on ------------------------------------------------------------------------------------------------------


def resume_point(directory: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to go on from, ``None`` = from the start, and what the user should know about the choice.

    Without a complete checkpoint the run begins anew: the same seed and settings lead to the same rounds. The log of
    those rounds is set aside, not removed.
    """
    checkpoint, skipped = last_complete(directory / CHECKPOINTS)
    notes = [f"Skipped {line}." for line in skipped]
    if checkpoint is not None:
        return checkpoint, [*notes, f"Going on from {checkpoint.name}."]
    aside = _set_aside(directory / EVENTS)
    log = f" The log so far is kept as {aside.name}." if aside else ""
    return None, [*notes, f"There is no complete checkpoint: the run starts again from its first round.{log}"]


def _set_aside(log: Path) -> Path | None:
    if not log.exists() or not log.stat().st_size:
        return None
    target = unused_aside(log)
    log.rename(target)
    return target


def check_unfinished(directory: Path, budget: Budget) -> None:
    """Refuse to resume a run that was finished and has spent ``budget``.

    Raises:
        RunError: It is finished.
    """
    if not (directory / SUMMARY).exists():
        return
    summary = read_json(
        directory / SUMMARY
    )  # of an earlier, smaller budget, if the run was killed while it was trained further
    if not isinstance(summary, dict) or summary.get("status") != "finished":
        return
    if budget.share(Spent(**summary["spent"])) >= 1:
        raise RunError(
            f"The run in {directory} has spent its budget. To train it further, resume with a larger --budget; to see it, run "
            f"dopr report {directory}."
        )


def check_same(directory: Path, settings: Mapping[str, Any], resolved: Mapping[str, Any], *, force: bool) -> list[str]:
    """Compare a resumed run with what it was started with.

    Returns:
        The differences, if they were forced.

    Raises:
        RunError: It has other data, model or settings, and was not forced.
    """
    stored = read_config(directory)
    then = {k: v for k, v in stored["settings"].items() if k not in CHANGEABLE}
    now = {k: v for k, v in _as_json(settings).items() if k not in CHANGEABLE}
    # Settings that came with a newer version of dopr have no value to differ from.
    changed = differences(then, {k: v for k, v in now.items() if k in then})
    # The model is known by its weights; a packaged one may have moved with its installation.
    known = {k: v for k, v in stored["resolved"].items() if k != "model"}
    changed += differences(known, {k: v for k, v in _as_json(resolved).items() if k in known})
    if changed and not force:
        raise RunError(
            f"The run in {directory} cannot be resumed with other data, model or settings ({'; '.join(changed)}). Set them "
            "back, start a new run, or give --force: then it goes on, but not as the uninterrupted run would have."
        )
    return changed


def round_at(checkpoint: Path) -> int:
    """Rounds that the checkpoint has behind it."""
    return int(_state(checkpoint, "round"))


def spent_at(checkpoint: Path) -> Spent:
    """Totals at the checkpoint."""
    try:
        return Spent(**_state(checkpoint, "spent"))
    except TypeError:
        raise RunError(f"The state of {checkpoint} holds no totals. Resume from another checkpoint.") from None


def _state(checkpoint: Path, name: str) -> Any:
    state = load_state(checkpoint / STATE_FILE)
    if name not in state:
        raise RunError(f"The state of {checkpoint} holds no {name}. Resume from another checkpoint.")
    return state[name]


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(values)))


def check_log(directory: Path, round_: int) -> None:
    """Refuse a log that lacks rounds before the checkpoint's.

    Raises:
        RunError: It does.
    """
    log = directory / EVENTS
    found = [e.get("round") for e in read_events(directory) if e.get("kind") == "round"] if log.exists() else []
    if found[:round_] != list(range(1, round_ + 1)):
        raise RunError(
            f"{log} does not hold rounds 1 to {round_}, which the checkpoint has behind it: it was removed or cut. Put it "
            "back, or give --force to go on without them."
        )
