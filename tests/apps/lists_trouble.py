"""What events of the service `lists` do to its handlers and processes, as they ask for themselves."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

from headrace.handlers.verdicts import DeadLetter

BLOCK_SECONDS, HANG_SECONDS = 0.5, 60.0
FAILURES = 3
"""Runs of an event in one process that raise: a quick one, the careful one that parks it, and one of its lane."""
DEATHS = Path(os.environ.get("APP_DEATHS", "deaths"))
"""A folder: a file in it has a byte for each process that an event has ended."""

runs: Counter[str] = Counter()


def make(trouble: str, place: str) -> None:
    """Do what the event at a place (key and number) asks for. Raises: ValueError, DeadLetter."""
    if trouble == "reject":
        raise DeadLetter("as asked")
    if trouble == "fail":
        fail(place)
    if trouble == "hang" and is_first(place):
        threading.Event().wait(HANG_SECONDS)
    if trouble == "block":
        time.sleep(BLOCK_SECONDS)
    if trouble == "die" and not (DEATHS / place).exists():
        _die(place)


def fail(place: str) -> None:
    """Raise in the first runs in this process."""
    runs[place] += 1
    if runs[place] <= FAILURES:
        raise ValueError("as asked")


def end_each_process(place: str) -> None:
    """Raise until the event is in its lane, and end the process in each run there."""
    runs[place] += 1
    if (DEATHS / place).exists() or runs[place] > FAILURES - 1:
        _die(place)
    raise ValueError("as asked")


def is_first(place: str) -> bool:
    """Count a run; tell whether it is the first one in this process."""
    runs[place] += 1
    return runs[place] == 1


def _die(place: str) -> None:
    with (DEATHS / place).open("ab") as file:
        file.write(b"x")
    os._exit(9)
