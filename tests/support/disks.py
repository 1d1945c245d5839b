"""A disk of a few megabytes, so that it can be full.

with small_disk(tmp_path / "disk", megabytes=64) as disk:
    ...                       # a server keeps its data in disk.folder
    disk.fill()               # nothing more can be written
    disk.free()
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PIECE_BYTES = 4_096


class SmallDisk:
    """A file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Take all that is left."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for piece in (256 * PIECE_BYTES, PIECE_BYTES):
                while _is_written(ballast.fileno(), bytes(piece)):
                    pass

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[SmallDisk | None]:
    """Mount it on a new folder until the end; yields None where nobody may."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "headrace-test", str(folder)]
    told = subprocess.run(mounting, capture_output=True, check=False)
    if told.returncode != 0:
        yield None
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _is_written(file: int, piece: bytes) -> bool:
    try:
        return os.write(file, piece) > 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
