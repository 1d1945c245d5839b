"""What the ledger keeps of a batch comes back as it was written."""

from __future__ import annotations

from headrace.ledger.rows import pack_emits, pack_marks, unpack_emits, unpack_marks
from headrace.log.ports import NewRecord


def test_records_come_out_of_the_ledger_as_they_went_in() -> None:
    records = [NewRecord("echoes", b"a", b"\xff", [("ce_id", b"1")]), NewRecord("echoes", None, None, [])]
    packed = pack_emits(records)
    assert packed is not None
    assert unpack_emits(packed) == records


def test_batch_without_emits_keeps_nothing() -> None:
    assert pack_emits([]) is None


def test_marks_are_kept_in_a_fixed_order_of_bytes() -> None:
    """Another machine reads them."""
    packed = pack_marks([(7 << 32) | 0x01020304, 1 << 32])
    assert packed.hex() == "070000000000000001000000000000000403020100000000"
    assert unpack_marks(packed, 2) == [(7 << 32) | 0x01020304, 1 << 32]
