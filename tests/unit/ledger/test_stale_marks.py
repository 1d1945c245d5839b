"""The mark of a stale event keeps its offset, and is told from marks that know none."""

from __future__ import annotations

import pytest

from headrace.ledger.rows import is_stale, pack_marks, stale_mark, true_offset, unpack_marks


@pytest.mark.parametrize("offset", [0, 1, 2**31 - 1])
def test_stale_mark_keeps_offset_and_sum(offset: int) -> None:
    (mark,) = unpack_marks(pack_marks([stale_mark(offset << 32 | 0xFFFF_FFFE)]), 1)
    assert is_stale(mark >> 32)
    assert (true_offset(mark >> 32), mark & 0xFFFF_FFFF) == (offset, 0xFFFF_FFFE)


def test_unknown_offset_is_not_stale() -> None:
    assert not is_stale(-1)
    assert true_offset(-1) == -1
