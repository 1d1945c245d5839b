"""The ledger: one row per committed batch, which says what it took in and what it emitted.

```
batch ─▶ rows.py: offsets, counts, event ids and their marks, emitted records ─▶ window.py: the ids of a partition
                                       │                                          (loaded by a new owner)
                                       └─ partitions.py: a table per day, made ahead and dropped when nobody needs it
```
Dead letters are written beside it, in the same transaction (dead_letters.py). The ids of a large window are packed
(packed_marks.py).

A row is written in the batch's own transaction, so it exists if and only if the batch took effect. A new owner of a
partition reads two things from it: the ids of the dedupe window, and emits that may not be in the log yet.

An event's identity is (source, type, id). Beside it the ledger keeps a mark: the event's offset and the CRC-32 of its
data. The offset tells a replay from a copy of the same event; the CRC tells a copy from another event that was given
the same identity, which is counted and logged as a conflict.

Nothing is ever deleted row by row.
"""
