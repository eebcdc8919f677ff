"""Runs in processes of their own, several at a time, each kept as soon as it is complete."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from dopr.compare.arms import Job
from dopr.config import TrainSettings
from dopr.config_layers import build
from dopr.errors import DoprError, RunError
from dopr.runlog import SUMMARY

_PARTIAL = ".part"


def run_jobs(
    jobs: Iterable[Job], directory: Path, *, at_once: int, keep_policies: bool, done: Callable[[Job, Path, float], None]
) -> None:
    """Run what is not yet complete below ``directory``, each into ``directory/slug``.

    A run is made under a name ending in ``.part`` and renamed when it is complete, so whatever has its plain name is
    whole. A run that fails does not stop the others; they are named together at the end.

    Args:
        jobs: The runs.
        directory: Where they go.
        at_once: Runs side by side; they share the processor's threads.
        keep_policies: Keep the trained weights.
        done: Told (job, run directory, seconds) after each new run.

    Raises:
        RunError: Some runs failed; the completed ones are kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if not (directory / job.slug / SUMMARY).exists()]
    if not waiting:
        return
    # A server that has imported the libraries once and forks each run off: no import per run, no shared state.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dopr.compare.preload"])
    with _on_interrupt(signal.SIG_IGN):  # inherited by the server and its children, which this process ends
        forkserver.ensure_running()
    threads = max(1, (os.cpu_count() or 1) // at_once)
    running: dict[BaseProcess, tuple[Job, float]] = {}
    failed: list[str] = []
    interruptions: list[int] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                target = directory / job.slug
                child: BaseProcess = context.Process(
                    target=_run, args=(asdict(job.settings), str(target), threads, keep_policies), name=job.slug
                )
                # An interruption waits: halfway it would leave a child that was sent nothing.
                with _on_interrupt(lambda number, frame: interruptions.append(number)):
                    child.start()
                    running[child] = (job, time.monotonic())
                if interruptions:
                    raise KeyboardInterrupt
            wait([process.sentinel for process in running])
            for process in [p for p in running if not p.is_alive()]:
                job, started = running.pop(process)
                process.join()
                if (directory / job.slug / SUMMARY).exists():
                    done(job, directory / job.slug, time.monotonic() - started)
                else:
                    failed.append(f"{job.slug}: {_reason(directory / f'{job.slug}.log', process.exitcode)}")
    finally:
        for process in running:
            process.terminate()  # dopr train stops at the end of its round; its part is thrown away
        for process in running:
            process.join()
    if failed:
        raise RunError(
            f"{len(failed)} of the runs failed; the others are kept, and the same command tries these again. "
            + " ".join(failed[:3])
        )


@contextmanager
def _on_interrupt(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    """Ctrl-C means this for a moment; where it raises nothing, as in a thread or in the background, it does as before."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _reason(log: Path, exit_code: int | None) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else f"ended with code {exit_code} and no message."


def _run(settings: dict[str, Any], target: str, threads: int, keep_policy: bool) -> None:
    """In the child: train, tidy, rename."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    final = Path(target)
    partial = final.with_name(final.name + _PARTIAL)
    log = final.with_name(final.name + ".log")
    with ExitStack() as stack:
        sink = stack.enter_context(log.open("w", encoding="utf-8"))
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            _train(build(TrainSettings, settings), partial, threads)
        except DoprError as error:
            sys.stderr.write(f"\n{str(error).strip()}\n")
            sys.exit(2)
        except BaseException:
            traceback.print_exc()
            raise
        if not keep_policy:
            shutil.rmtree(partial / "checkpoints", ignore_errors=True)
        partial.replace(final)
    log.unlink(missing_ok=True)


def _end_with_parent() -> None:
    """A comparison that was killed must not leave runs behind; what they had begun is made anew."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(settings: TrainSettings, partial: Path, threads: int) -> None:
    import torch

    from dopr.quiet import quiet_libraries
    from dopr.train.prepare import prepare
    from dopr.train.run import run

    quiet_libraries()
    torch.set_num_threads(threads)
    shutil.rmtree(partial, ignore_errors=True)  # left by a comparison that was stopped
    # Without checkpoints: what a stopped comparison had begun is made anew.
    settings = replace(settings, output=str(partial), save_minutes=0.0, save_every=0)
    outcome = run(
        prepare(settings), progress=lambda event, share: None, say=lambda text: None,
        report=False,
    )  # fmt: skip
    if outcome.summary["status"] == "interrupted":
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError("interrupted.")
