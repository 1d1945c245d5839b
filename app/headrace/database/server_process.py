"""The processes of an embedded PostgreSQL: as whom they run, how they are started, which of them are left over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from headrace.database import launch
from headrace.errors import ConfigurationError

_POLL_SECONDS = 0.02
_PROGRAMS = {"postgres", "initdb"}
_FLUSHES = 32
"""Files that are flushed at a time: a file system writes its journal once for many that wait together."""


def choose_identity(data_dir: Path, binaries: Path) -> str:
    """Return as whom the server runs (see `launch`).

    Raises: ConfigurationError (that one may not enter a parent folder; only the user changes permissions).
    """
    if os.geteuid() != 0:
        return "same"
    identity = "namespace" if _may_enter_namespace(binaries) else "nobody"
    # In a namespace root has lost the right to ignore permissions, too.
    uid, name = (0, "an unprivileged root") if identity == "namespace" else (launch.NOBODY, "nobody")
    for folder in dict.fromkeys([data_dir, *data_dir.parents, binaries, *binaries.parents]):
        status = folder.stat()
        bit = 0o100 if status.st_uid == uid else 0o010 if status.st_gid == uid else 0o001
        if not status.st_mode & bit:
            raise ConfigurationError(
                f"the embedded PostgreSQL cannot run as root, and as {name} it cannot enter {folder}; "
                f"start Headrace as a user of its own, set HEADRACE_DATA_DIR to another folder, or chmod o+x {folder}."
            )
    return identity


def give(folder: Path, identity: str) -> None:
    """Hand the folder to the one that the server runs as; only root ever has to."""
    if identity == "same":
        return
    owner = launch.NOBODY if identity == "nobody" else 0
    if folder.stat().st_uid != owner:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)


def flush_all(folder: Path) -> None:
    """Return when the folder, and all that is in it, is on disk. Raises: OSError."""
    with ThreadPoolExecutor(_FLUSHES) as threads:
        for _ in threads.map(flush, (folder, *folder.rglob("*"))):
            pass


def flush(path: Path) -> None:
    """Return when a file, or the list of a folder's files, is on disk. Raises: OSError."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def spawn(
    identity: str,
    program: list[str],
    folder: Path,
    output: IO[bytes],
    text: IO[bytes] | int = subprocess.DEVNULL,
    death_signal: signal.Signals = signal.SIGQUIT,
) -> subprocess.Popen[bytes]:
    """Start the program in the folder, by which `clear` finds it; it dies with this process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return subprocess.Popen(
        launch.command(identity, program, death_signal),
        stdin=text,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment | {"LC_ALL": "C"},
        start_new_session=True,  # a Ctrl-C on the terminal is the platform's: it drains first, then stops the server
    )


async def clear(cluster: Path, seconds: float) -> None:
    """End every PostgreSQL process that works in the folder: politely, then not."""
    postmaster = pid_file(cluster)[:1]
    left = _processes_in(cluster)
    for pid in left:
        if [str(pid)] == postmaster:
            _signal(pid, signal.SIGINT)
            _signal(pid, signal.SIGCONT)
            await until(lambda: not _processes_in(cluster), seconds)
    for pid in _processes_in(cluster):
        _signal(pid, signal.SIGKILL)
    await until(lambda: not _processes_in(cluster), seconds)


def pid_file(cluster: Path) -> list[str]:
    """Return the lines of the server's own pid file: 1 pid, 5 socket folder, 8 status; empty if there is none."""
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return True as soon as the condition holds, False after the seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _may_enter_namespace(binaries: Path) -> bool:
    probe = launch.command("namespace", [str(binaries / "postgres"), "--version"])
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _processes_in(cluster: Path) -> set[int]:
    """Return the server and its backends: each changes into the folder, so that no pid has to be trusted."""
    found = set()
    if sys.platform == "linux":
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().strip() in _PROGRAMS and os.path.samefile(entry / "cwd", cluster):
                    found.add(int(entry.name))
    elif lines := pid_file(cluster):
        asked = ["/bin/ps", "-o", "command=", "-p", lines[0]]
        if f"-D {cluster} " in subprocess.run(asked, capture_output=True, text=True, check=False).stdout:
            found.add(int(lines[0]))
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
