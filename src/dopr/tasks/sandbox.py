"""Runs a program that a policy wrote, in a process of its own behind limits and, where the kernel allows, walls.

Always: limits on processor time, memory per process, file size, processes, open files and wall time; output cut off and
the program killed past a size; an environment without the parent's; a temporary directory; ``python -I``. As root: a user
id of its own that owns nothing. On Linux with namespaces (:func:`isolation` says which): ``jail`` adds a file tree of its
own (the system's and Python's directories read-only, nothing else), no network, and processes that see only each other and
all end with the program; ``namespaces`` has the last two, ``limits`` none. docs/verifiers.md says what this does not stop.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from dopr.errors import RewardError
from dopr.tasks import jail

LEVELS = ("jail", "namespaces", "limits")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one run of a program may use."""

    wall_seconds: float = 10.0
    """Time by the clock."""
    cpu_seconds: int = 5
    """Processor time of one process."""
    memory_bytes: int = 512 << 20
    """Address space of one process."""
    file_bytes: int = 32 << 20
    """Size of one file; in a jail of all files together."""
    processes: int = 16
    """Processes and threads at once."""
    output_bytes: int = 1 << 20
    """Standard output and error together."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    status: str
    """``ok`` (exit code 0), ``error`` (another code or a signal), ``timeout`` (by the clock or the processor) or ``output`` (too much of it)."""
    stdout: bytes
    """Standard output, as far as it was read."""
    stderr: bytes
    """Standard error, as far as it was read."""


def run_python(program: str, stdin: bytes = b"", *, limits: Limits, level: str | None = None) -> Outcome:
    """Run ``program`` with ``stdin`` as its input.

    Args:
        program: Python text.
        stdin: its standard input.
        limits: what it may use.
        level: one of :data:`LEVELS`; by default the best that this machine has.
    """
    with tempfile.TemporaryDirectory(prefix="dopr-code-") as folder, tempfile.TemporaryFile() as source:
        uid = random.SystemRandom().randrange(20_000, 60_000)
        inside = Path(folder) / "work"
        inside.mkdir(mode=0o700)
        (Path(folder) / "program.txt").write_text(program, encoding="utf-8", errors="replace")
        if os.geteuid() == 0:
            os.chmod(folder, 0o711)
            os.chown(inside, uid, uid)
        source.write(stdin)
        source.seek(0)
        order = {
            "level": level or isolation(), "program": f"{folder}/program.txt", "folder": str(inside), "uid": uid,
            "readonly": _readonly(), "command": [sys.executable, "-I", "-B"],
            "limits": {
                "CPU": limits.cpu_seconds, "AS": limits.memory_bytes, "FSIZE": limits.file_bytes, "NPROC": limits.processes,
                "NOFILE": 64, "CORE": 0,
            },
        }  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(Path(jail.__file__)), json.dumps(order)], stdin=source,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}, cwd=folder, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                return _watch(process, limits)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _watch(process: subprocess.Popen[bytes], limits: Limits) -> Outcome:
    """Read what the program writes until it ends, writes too much, or its time is up."""
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + limits.wall_seconds
    texts = {process.stdout: bytearray(), process.stderr: bytearray()}
    status = ""
    with selectors.DefaultSelector() as waiting:
        for pipe in texts:
            os.set_blocking(pipe.fileno(), False)
            waiting.register(pipe, selectors.EVENT_READ, pipe)
        while waiting.get_map() and not status:
            left = deadline - time.monotonic()
            if left <= 0:
                status = "timeout"
            # A process that the program left behind may hold the pipes open: look now and then whether it has ended.
            ready = waiting.select(min(max(left, 0), 0.2))
            if not ready and process.poll() is not None:
                break
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    waiting.unregister(key.fileobj)
                texts[key.data] += data
            if sum(map(len, texts.values())) > limits.output_bytes:
                status = "output"
    if not status:
        try:
            code = process.wait(max(deadline - time.monotonic(), 0))
            status = "ok" if code == 0 else "timeout" if code == 128 + signal.SIGXCPU else "error"
        except subprocess.TimeoutExpired:  # it closed its output and goes on
            status = "timeout"
    return Outcome(status, bytes(texts[process.stdout]), bytes(texts[process.stderr]))


@functools.cache
def isolation() -> str:
    """The strongest of :data:`LEVELS` that this machine has, tried out once.

    Raises:
        RewardError: not even limits: there is no ``fork`` here, or Python cannot be started anew.
    """
    if sys.platform != "win32":
        for level in LEVELS:
            outcome = run_python("print(6 * 7)", limits=Limits(wall_seconds=30.0), level=level)
            if (outcome.status, outcome.stdout) == ("ok", b"42\n"):
                return level
    raise RewardError(
        "Programs of a policy cannot be run safely here. It takes Linux or macOS; and as root either the right to make "
        "namespaces, or a Python that other users may start (not under /root), since programs run as another user."
    )


@functools.cache
def _readonly() -> list[str]:
    """The directories that hold the system's libraries and this Python with its packages, the outermost only."""
    wanted = [
        "/usr", "/lib", "/lib64", "/bin", sys.prefix, sys.base_prefix, sys.exec_prefix,
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(sys.executable).parent), str(Path(sys.executable).resolve().parent),
    ]  # fmt: skip
    real = sorted({path for path in wanted if os.path.isdir(path) and not os.path.islink(path)}, key=len)
    kept: list[str] = []
    for path in real:
        if not any(path == outer or path.startswith(outer + "/") for outer in kept):
            kept.append(path)
    return kept
