"""A clock that can be turned while a process runs: libfaketime's, of the wall and not of the time that has passed.

clock = turned_clock(tmp_path)
...                       # a process is started with clock.environment
clock.turn(hours=-6)      # it follows at once, all of its processes together
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

PLACES = ["/usr/lib", "/usr/lib64", "/usr/local/lib"]
LIBRARY = "faketime/libfaketimeMT.so.1"


@dataclass(frozen=True)
class TurnedClock:
    """The clock of the processes that have its environment."""

    file: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process has to be started with."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def turn(self, *, hours: float) -> None:
        """Let it differ from the right time by so much."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{hours * 3600:+.0f}s\n")
        new.rename(self.file)


def turned_clock(folder: Path) -> TurnedClock:
    """Return a clock that shows the right time; a machine without libfaketime skips the test."""
    found = [path for place in PLACES for path in Path(place).glob(f"**/{LIBRARY}") if os.access(path, os.R_OK)]
    if not found:
        pytest.skip("a clock is turned by libfaketime, which is missing: apt-get install -y libfaketime")
    clock = TurnedClock(folder / "clock", found[0])
    clock.turn(hours=0)
    return clock
