"""Starts one untrusted program inside what walls the kernel offers. Run as a script by :mod:`dopr.tasks.sandbox`, alone.

It needs the standard library only and takes one JSON argument: ``level``, ``command``, ``program`` (path of the program's
text), ``folder`` (its working directory), ``uid`` (to become, where this runs as root), ``readonly`` (directories that it
may see) and ``limits``. Levels: ``jail`` (own file tree, network, processes), ``namespaces`` (own network and processes)
and ``limits`` (resource limits alone). It exits with the program's code, 128 + signal, or 97 where the level is not to be had.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

UNAVAILABLE = 97
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_PDEATHSIG, _NO_NEW_PRIVS, _CAPBSET_DROP, _DUMPABLE = 1, 38, 24, 4
_ROOT = "/tmp"  # the new root is mounted here, seen by this process alone
_FOLDER = "/dopr-work"  # the program's own; no Python that is bound beside it lies below a folder of this name


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def _mount(libc: Any, source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    encoded = kind.encode() if kind else None
    _check(libc.mount(source.encode(), target.encode(), encoded, flags, data.encode() or None), f"mount {target}")


def _namespaces(libc: Any) -> None:
    own = os.geteuid() == 0
    uid, gid = os.getuid(), os.getgid()
    flags = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
    _check(libc.unshare(flags if own else flags | _NEWUSER), "unshare")
    if not own:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _tree(libc: Any, readonly: list[str], size: int, uid: int | None) -> str:
    """Build the program's file tree: the read-only directories, a few devices, an empty folder of its own."""
    _mount(libc, "none", "/", None, _REC | _PRIVATE)
    root = _ROOT + "/root"
    # What is bound must be held before the new root hides it.
    handles = {path: os.open(path, os.O_PATH) for path in [*readonly, "/dev/null", "/dev/zero", "/dev/urandom"]}
    _mount(libc, "jail", _ROOT, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for path, handle in handles.items():
        target, source = root + path, f"/proc/self/fd/{handle}"
        if path.startswith("/dev/"):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w"):
                pass
        else:
            os.makedirs(target, exist_ok=True)
        try:
            _mount(libc, source, target, None, _BIND)
        except OSError:
            _mount(libc, source, target, None, _BIND | _REC)
        if not path.startswith("/dev/"):
            _mount(libc, source, target, None, _BIND | _REMOUNT | _RDONLY | _NOSUID | _kept(target))
        os.close(handle)
    for link in ("bin", "lib", "lib64"):
        if os.path.islink("/" + link) and not os.path.lexists(f"{root}/{link}"):
            os.symlink(os.readlink("/" + link), f"{root}/{link}")
    os.makedirs(root + _FOLDER)
    _mount(
        libc,
        "work",
        root + _FOLDER,
        "tmpfs",
        _NOSUID | _NODEV,
        f"size={size},mode=700" + (f",uid={uid}" if uid else ""),
    )
    if not os.path.lexists(root + "/tmp"):
        os.symlink(_FOLDER, root + "/tmp")
    os.makedirs(root + "/proc")
    return root


def _kept(path: str) -> int:
    """Mount flags that a user namespace must keep."""
    flags = os.statvfs(path).f_flag
    return flags & (_NODEV | _NOEXEC | 1024 | 2048) | ((1 << 21) if flags & 4096 else 0)


def _drop(libc: Any, uid: int | None) -> None:
    """Give up every privilege for good."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    else:
        for capability in range(64):
            libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        libc.capset(header, (ctypes.c_uint32 * 6)())
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = value + 1 if name == "CPU" else value  # SIGXCPU first, SIGKILL a second later
        with contextlib.suppress(ValueError, OSError):  # a lower limit holds already
            resource.setrlimit(kind, (value, hard))


def _code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _wait(pid: int) -> int:
    while True:
        done, status = os.wait()
        if done == pid:
            return _code(status)


def main() -> None:
    """Run the program that ``sys.argv[1]`` describes."""
    order = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    uid = order["uid"] if os.geteuid() == 0 else None
    with open(order["program"], "rb") as file:
        program = file.read()
    root = folder = order["folder"]
    try:
        if order["level"] != "limits":
            _namespaces(libc)
        if order["level"] == "jail":
            root = _tree(libc, order["readonly"], order["limits"]["FSIZE"], uid)
            folder = root + _FOLDER
    except OSError as error:
        print(f"{order['level']}: {error}", file=sys.stderr)  # noqa: T201 - for whoever asks why
        os._exit(UNAVAILABLE)
    keeper = os.fork()
    if keeper:
        os._exit(_wait(keeper))
    # The first process of the new process namespace: with it every process of the program ends.
    libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if order["level"] == "jail":
        with contextlib.suppress(OSError):  # not in every container; Python does without
            _mount(libc, "proc", root + "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
        os.chroot(root)
        folder = _FOLDER
    with open(f"{folder}/program.py", "wb") as file:
        file.write(program)
    os.chdir(folder)
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    worker = os.fork()
    if worker:
        os._exit(_wait(worker))
    if order["level"] == "limits":
        libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _limit(order["limits"])
    _drop(libc, uid)
    os.execve(
        order["command"][0], [*order["command"], "program.py"], {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    )


if __name__ == "__main__":
    main()
