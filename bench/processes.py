"""What processes have used, as Linux counts it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.support.proc import stat_fields, stats

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int | None) -> float:
    """Return user and system seconds of a process, its children, and the children that it has seen end."""
    return sum(_cpu_seconds(each) for each in tree(pid))


def busy_seconds() -> float:
    """Return for how long the machine's cores have worked, whoever had them."""
    _, user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()
    return sum(map(int, (user, nice, system, *interrupts[:3]))) / _TICKS


def peak_bytes(pid: int | None) -> int:
    """Return the sum of the most memory that the process and its children have had."""
    return sum(_memory_bytes(each, "VmHWM") for each in tree(pid))


def resident_bytes(pid: int | None) -> int:
    """Return the memory that the process and its children have now."""
    return sum(_memory_bytes(each, "VmRSS") for each in tree(pid))


def tree(pid: int | None) -> set[int]:
    """Return the process and all below it that live; nothing if there is no process."""
    if pid is None:
        return set()
    known = stats()
    found, waiting = {pid}, [pid]
    while waiting:
        parent = waiting.pop()
        below = {child for child, fields in known.items() if int(fields[1]) == parent} - found
        found |= below
        waiting += below
    return found


def machine() -> dict[str, object]:
    """Return what the figures were measured on."""
    information = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.+)", information)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "processor": model[1] if model else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 2**20) if memory else None,
        "kernel": os.uname().release,
    }


def _cpu_seconds(pid: int) -> float:
    return sum(int(ticks) for ticks in stat_fields(pid)[11:15]) / _TICKS


def _memory_bytes(pid: int, name: str) -> int:
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) * 1024 if found else 0
