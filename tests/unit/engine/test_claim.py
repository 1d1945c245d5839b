"""Fingerprints tell one record from another at the same offset."""

from __future__ import annotations

import pytest

from headrace.engine.claim import Fingerprint
from headrace.log.ports import StoredRecord

RECORD = StoredRecord("pages", 0, 7, 1_700_000_000_000, b"a", b"one", ())


def test_record_matches_its_own_fingerprint() -> None:
    assert Fingerprint.of(RECORD).matches(RECORD)


@pytest.mark.parametrize(
    "other",
    [
        StoredRecord("pages", 0, 8, 1_700_000_000_000, b"a", b"one", ()),
        StoredRecord("pages", 0, 7, 1_700_000_000_001, b"a", b"one", ()),
        StoredRecord("pages", 0, 7, 1_700_000_000_000, b"b", b"one", ()),
        StoredRecord("pages", 0, 7, 1_700_000_000_000, b"a", b"two", ()),
        StoredRecord("pages", 0, 7, 1_700_000_000_000, None, None, ()),
    ],
    ids=["offset", "time", "key", "value", "tombstone"],
)
def test_record_that_differs_in_one_thing_does_not_match(other: StoredRecord) -> None:
    assert not Fingerprint.of(RECORD).matches(other)
