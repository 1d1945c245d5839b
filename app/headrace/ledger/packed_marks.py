"""The marks of a large dedupe window, packed: 40 to 50 bytes an id instead of the 190 of a dictionary.

How an id is found, and why so (`python -m bench.window` measures it):

* The ids are kept in segments, in the order in which they came: 16 bytes of the identity, 8 of the mark, and 4 that
  link to the next older id of the same slot. The oldest segment is dropped whole.
* A table of slots, at least two for an id, has an entry of 4 bytes for the newest id of each slot: its number and, in
  the lowest bits, a print of its hash. A number that is not among the window's is that of an id which was dropped, so
  nothing has to be cleared: to take each id out of the table would cost as much as to add it.
* What costs time is memory that no cache holds. Of new ids, and nearly all are new, three of five are settled by the
  entry of their slot. For the others the print tells that the slot's id is another one, and only the link is read. The
  identity itself is compared where the prints are the same.
* The slot comes from Python's own hash, which the identity has computed already, and whose key nobody outside knows: an
  identity is a plain SHA-256, of which anyone could find many for one slot.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from typing import Any

from headrace.ledger.rows import IDENTITY_BYTES

SEGMENT_BITS = 14
SEGMENT_IDS = 1 << SEGMENT_BITS
"""Few, so that the window is little larger than it has to be; many, so that a segment's own objects do not count."""
PLACE = SEGMENT_IDS - 1
ENTRY_BITS = 30
"""What Python calculates with fastest. An entry has up to 32 if the window is of more than a hundred million ids."""
PRINT_SHIFT = 40
"""The slot is the lowest bits of the hash; the print is made of those from here on."""
LEAST_SLOTS = 1 << 18
"""1 MB. Each time that the table doubles, the ids that are there share slots with others until they are dropped."""


class _Segment:
    """Ids that follow each other."""

    __slots__ = ("at", "base", "ids", "marks", "older")

    def __init__(self, at: float, mark: int) -> None:
        self.at = at
        """When its first id was committed."""
        self.base = mark >> 62 << 62
        """0 for an offset below a billion."""
        self.ids = bytearray(IDENTITY_BYTES * SEGMENT_IDS)
        self.marks: array[int] | list[int] = array("q", [0]) * SEGMENT_IDS
        """Less the `base`. They fit into 8 bytes unless offsets, or those of stale marks, are a billion apart."""
        self.older = array("I", [0]) * SEGMENT_IDS
        """The entry whose place each id has taken."""

    def keep(self, begin: int, identities: Sequence[bytes], marks: Sequence[int]) -> None:
        end = begin + len(identities)
        memoryview(self.ids)[IDENTITY_BYTES * begin : IDENTITY_BYTES * end] = b"".join(identities)  # of that very size
        relative = [mark - self.base for mark in marks] if self.base else marks
        try:
            self.marks[begin:end] = array("q", relative)
        except OverflowError:
            self.marks = [*self.marks]
            self.marks[begin:end] = relative

    def has(self, place: int, identity: bytes) -> bool:
        begin = place * IDENTITY_BYTES
        return self.ids[begin : begin + IDENTITY_BYTES] == identity


class PackedMarks(Mapping[bytes, int]):
    """The marks of the last `limit` ids or some more, by identity. Nothing may be looked up while ids are added.

    An id that is added again has its newest mark, until that is dropped.
    """

    def __init__(self, limit: int, expected: int = 0) -> None:
        """Make room for the `expected` ids at once: what is added while the table grows is slower to look up."""
        self._limit = limit
        self._segments: list[_Segment] = []
        self._first, self._count = 1, 0
        """The number of the oldest id, and how many there are. Numbers begin anew after four windows or more."""
        number_bits = (limit + 2 * SEGMENT_IDS).bit_length() + 2
        self._print_bits = max(0, ENTRY_BITS - number_bits)
        self._prints = (1 << self._print_bits) - 1
        self._entries = (1 << number_bits + self._print_bits) - 1
        self._heads = array("I", [0]) * LEAST_SLOTS
        """The entry of each slot."""
        self._make_room(expected)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        for row in range(self._count):
            begin = (row & PLACE) * IDENTITY_BYTES
            yield bytes(self._segments[row >> SEGMENT_BITS].ids[begin : begin + IDENTITY_BYTES])

    def __getitem__(self, identity: bytes) -> int:
        if (mark := self.get(identity)) is None:
            raise KeyError(identity)
        return mark  # type: ignore[no-any-return]

    def __contains__(self, identity: object) -> bool:
        return self.get(identity) is not None

    def get(self, identity: Any, default: Any = None) -> Any:
        """Return the mark of the identity."""
        heads, segments, shift = self._heads, self._segments, self._print_bits
        entries, prints = self._entries, self._prints
        digest, first, newer = hash(identity), self._first << shift, self._count << shift
        entry = heads[digest & len(heads) - 1]
        while (above := entry - first & entries) < newer:  # each link leads to an older one, or out
            row = above >> shift
            segment, place = segments[row >> SEGMENT_BITS], row & PLACE
            if not (entry ^ digest >> PRINT_SHIFT) & prints and segment.has(place, identity):
                return segment.base + segment.marks[place]
            newer, entry = above, segment.older[place]
        return default

    def keys(self) -> KeysView[bytes]:
        """Return a view that is fast to ask for many identities."""
        return _Identities(self)

    def has_none_of(self, identities: Iterable[bytes]) -> bool:
        """True if all of the identities are new."""
        heads, segments, shift = self._heads, self._segments, self._print_bits
        entries, prints = self._entries, self._prints
        slots, first, count = len(heads) - 1, self._first << shift, self._count << shift
        for identity in identities:
            digest = hash(identity)
            entry, newer = heads[digest & slots], count
            while (above := entry - first & entries) < newer:  # as `get` does, without a call of it
                if not (entry ^ digest >> PRINT_SHIFT) & prints and identity in self:
                    return False
                row = above >> shift
                newer, entry = above, segments[row >> SEGMENT_BITS].older[row & PLACE]
        return True

    @property
    def since(self) -> float | None:
        """When the oldest id was committed, or one of the few before it; None if there is none."""
        return self._segments[0].at if self._segments else None

    def add(self, identities: Sequence[bytes], marks: Sequence[int], at: float) -> None:
        """Add ids that were committed `at` (Unix seconds), and drop the oldest segments over the limit."""
        done = 0
        while done < len(identities):
            begin = self._count & PLACE
            if not begin:
                self._segments.append(_Segment(at, marks[done]))
            portion = slice(done, done + SEGMENT_IDS - begin)
            self._append(begin, identities[portion], marks[portion])
            done = portion.stop
            if self._count - SEGMENT_IDS >= self._limit:
                del self._segments[0]
                self._first = self._first + SEGMENT_IDS & self._entries >> self._print_bits
                self._count -= SEGMENT_IDS

    def _append(self, begin: int, identities: Sequence[bytes], marks: Sequence[int]) -> None:
        self._make_room(self._count + len(identities))
        segment, older = self._segments[-1], list[int]()
        segment.keep(begin, identities, marks)
        heads, slots, entries, prints = self._heads, len(self._heads) - 1, self._entries, self._prints
        number, step, link = self._first + self._count << self._print_bits, 1 << self._print_bits, older.append
        for digest in map(hash, identities):
            slot = digest & slots
            link(heads[slot])
            heads[slot] = number & entries | digest >> PRINT_SHIFT & prints
            number += step
        segment.older[begin : begin + len(older)] = array("I", older)
        self._count += len(identities)

    def _make_room(self, ids: int) -> None:
        """Double the slots until there are two for each id. Both halves lead to the ids that there are already."""
        while len(self._heads) < 2 * ids:
            self._heads = self._heads * 2


class _Identities(KeysView[bytes]):
    """The identities of packed marks."""

    def __init__(self, marks: PackedMarks) -> None:
        super().__init__(marks)
        self._marks = marks

    def isdisjoint(self, other: Iterable[Any]) -> bool:
        """True if none of the others is known."""
        return self._marks.has_none_of(other)
