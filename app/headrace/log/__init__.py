"""2. The log: the only thing between those who publish events and those who apply them.

```
ingest, outbox, emits ──publish──▶ log: topic ▶ partition ▶ offset ──reader──▶ engine
                                    └────────── membership ─────────▶ which partitions are this process's
```
`ports.py` is the contract and `headrace.testing.conformance.LogSuite` its proof; every log passes it:

| log | kept | shared by | files |
| --- | --- | --- | --- |
| memory | as long as the process | one process | `memory.py`, `local.py` |
| embedded | after the commit is on disk | one process | `embedded*.py`, `local.py` |
| Kafka | on `acks=all` | all members of a group | `kafka*.py` |

What a log promises: the position that publish() returned holds that record, byte for byte, until retention deletes it;
records of one key land on one partition (Java's murmur2, `partitioner.py`) in the order they were published; a reader
returns each record once, in offset order, from any position; a position that the log does not hold is an error and is
never moved in silence. It does not promise that a record is published once: after a TransportError the outcome is
unknown, the caller publishes again, and the events' ids tell.

What survives a crash: what was acknowledged. Readers and memberships keep nothing, so they can be thrown away at any
time; where a subscription stands is in its claim, in Postgres.

Why readers are apart from the membership. A Kafka client offers both in one consumer. There, a reader in trouble must
leave the group to be made anew, and stop every partition of every member; records arrive before an awaited seek has
ended; and a consumer that does not poll, since its database is away, loses its seat. Here the seat only says what is
ours, polls on a task of its own and fetches nothing, while a reader belongs to one partition number, reads from where
the claim says, and is made anew without anybody noticing. The price is a connection per partition number and broker.

Rejected: committing progress to the log (two truths; the group's offsets are a hint for lag tools) · transactions of
Kafka around a batch (they cannot include Postgres) · the sticky assignor (it keeps its state on the class, so that two
subscriptions of one process share it) · a future per record in the producer (five times the cost) · waiting for a
timer before a batch is sent (what arrives while the last one is under way makes batches large enough by itself).
Measured on two cores, records of 300 bytes in calls of 100: zstd 235,000/s, snappy 194,000, none 179,000, lz4 178,000;
so zstd is the default. A reader costs no more than bare `getmany` (4.1 and 4.0 µs a record).
"""
