"""What Linux tells of a process."""

from __future__ import annotations

from pathlib import Path


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/pid/stat behind the name, which may hold spaces; empty for a process that has ended.

    The first are its state (`Z` of one that has ended and was not waited for) and its parent.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def stats() -> dict[int, list[str]]:
    """Return the fields of every process, by its id."""
    ids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return {pid: fields for pid in ids if (fields := stat_fields(pid))}
