"""How large records are to a reader whose fetches are bounded by bytes."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.log.ports import Record


def size_bytes(record: Record) -> int:
    """Return the bytes of the record's key, value, header names and header values."""
    size = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += (len(name) if name.isascii() else len(name.encode("utf-8", "replace"))) + len(value or b"")
    return size


def leading(records: Sequence[Record], max_records: int, max_bytes: int) -> tuple[int, int]:
    """Return how many of the first records fit into both limits, and their bytes; the first may be of any size.

    The second number is larger than max_bytes only if the first record alone is.
    """
    count = total = 0
    for record in records[:max_records]:
        size = size_bytes(record)
        if count and total + size > max_bytes:
            break
        count += 1
        total += size
    return count, total
