"""A new PostgreSQL folder, made beside its final place so that it appears whole or not at all."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from headrace.database.server_process import flush, flush_all, give, spawn, until
from headrace.errors import ConfigurationError

USER = "headrace"
DATABASE = "headrace"
PREFIX = "cluster.new-"
"""What is left of a folder with this name when a platform is killed is removed by the next one."""

_LONGEST_SECONDS = 1_800.0
_LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_ACCESS = ("--auth-local=trust", "--auth-host=scram-sha-256", f"--username={USER}")


class NewCluster:
    """Is being made from its creation on: `initdb` runs until `finish` waits for it, or `discard` ends it.

    Create it in a thread that outlives it: Linux ends `initdb` with that thread.
    """

    def __init__(self, data_dir: Path, binaries: Path, identity: str, *, is_durable: bool) -> None:
        """Raises: OSError (the folder cannot be made)."""
        self._data_dir = data_dir
        self._binaries = binaries
        self.identity = identity
        """As whom its files are written."""
        self._is_durable = is_durable
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=data_dir))
        give(self._folder, identity)
        # Neither this nor the server flushes what it writes: all of it is flushed once, behind both.
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = self._spawn(["initdb", "--no-sync", "-D", str(self._folder), *_LOCALE, *_ACCESS])

    async def finish(self, place: Path) -> None:
        """Wait for `initdb`, make the database, and move the folder to its place once all of it is on disk.

        Raises: ConfigurationError (what failed, and what it said), OSError.
        """
        await self._end("initdb")
        # The database that initdb makes becomes the platform's: a second one would be 300 files more.
        renaming = f"alter database postgres rename to {DATABASE};\n"
        self._process = self._spawn(["postgres", "--single", "-F", "-D", str(self._folder), "template1"], renaming)
        await self._end("postgres")
        if self._is_durable:
            await asyncio.to_thread(flush_all, self._folder)
        self._folder.rename(place)
        flush(self._data_dir)
        self._said.close()

    def discard(self) -> None:
        """End what still runs, and remove the folder unless it was moved to its place. Never raises."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # and its children, which would go on writing
            self._process.wait()
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self, program: list[str], text: str = "") -> subprocess.Popen[bytes]:
        """Start a program; SIGKILL ends it with this process, since initdb would tidy up while the next one begins."""
        program = [str(self._binaries / program[0]), *program[1:]]
        with tempfile.TemporaryFile() as asked:
            asked.write(text.encode())
            asked.seek(0)
            return spawn(self.identity, program, self._folder, self._said, asked, signal.SIGKILL)

    async def _end(self, program: str) -> None:
        """Wait for the program's end. Raises: ConfigurationError (it failed)."""
        await until(lambda: self._process.poll() is not None, _LONGEST_SECONDS)
        if self._process.poll() != 0:
            self._said.seek(0)
            lines = " / ".join(self._said.read().decode(errors="replace").strip().splitlines()[-3:])
            raise ConfigurationError(
                f"no database could be made in HEADRACE_DATA_DIR={self._data_dir}: {program} says: {lines}"
            )
