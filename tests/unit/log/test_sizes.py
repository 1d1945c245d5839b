"""How many records fit into a fetch."""

from __future__ import annotations

import pytest

from headrace.log.ports import StoredRecord
from headrace.log.sizes import HEADER_BYTES, leading, size_bytes


def _record(value: bytes | None, *headers: tuple[str, bytes | None]) -> StoredRecord:
    return StoredRecord("pages", 0, 0, 0, b"key", value, headers)


@pytest.mark.parametrize(
    ("record", "size"),
    [
        (_record(None), 3),
        (_record(b"value"), 8),
        (_record(b"", ("name", b"content"), ("null", None)), 3 + 2 * HEADER_BYTES),
    ],
)
def test_keys_values_and_headers_are_counted(record: StoredRecord, size: int) -> None:
    assert size_bytes(record) == size


@pytest.mark.parametrize(
    ("sizes", "max_records", "max_bytes", "fitting"),
    [
        ([], 10, 10, (0, 0)),
        ([10, 10, 10], 10, 30, (3, 30)),
        ([10, 10, 10], 10, 29, (2, 20)),
        ([10, 10, 10], 2, 100, (2, 20)),
        ([50, 10], 10, 20, (1, 50)),
        ([10, 50, 10], 10, 20, (1, 10)),
        ([10, 10], 0, 100, (0, 0)),
        ([10], 10, -5, (1, 10)),
    ],
)
def test_only_the_first_record_may_be_too_large(
    sizes: list[int], max_records: int, max_bytes: int, fitting: tuple[int, int]
) -> None:
    assert leading([_record(bytes(size - 3)) for size in sizes], max_records, max_bytes) == fitting
