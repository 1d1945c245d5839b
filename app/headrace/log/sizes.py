"""How large records are to a reader whose fetches are bounded by bytes."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.log.ports import Record
from headrace.native import speedups

HEADER_BYTES = 64
"""What a header counts as: to look at each one of each record would cost a tenth of all the work on an event."""


def size_bytes(record: Record) -> int:
    """Return the bytes of the record's key and value, and HEADER_BYTES for each header."""
    return len(record.key or b"") + len(record.value or b"") + HEADER_BYTES * len(record.headers)


def leading(records: Sequence[Record], max_records: int, max_bytes: int) -> tuple[int, int]:
    """Return how many of the first records fit into both limits, and their bytes; the first may be of any size.

    The second number is larger than max_bytes only if the first record alone is.
    """
    sizes = _sizes(records[:max_records])
    if (total := sum(sizes)) <= max_bytes or not sizes:
        return len(sizes), total
    count, taken = 1, sizes[0]
    for size in sizes[1:]:
        if taken + size > max_bytes:
            break
        count += 1
        taken += size
    return count, taken


def _sizes(records: Sequence[Record]) -> list[int]:
    known: list[int] | None = speedups.sizes(records, HEADER_BYTES) if speedups is not None else None
    return known if known is not None else list(map(size_bytes, records))
