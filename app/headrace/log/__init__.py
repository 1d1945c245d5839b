"""The log: the only thing between those who publish events and those who apply them.

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
never moved in silence; only create() makes a topic. It does not promise that a record is published once: after a
TransportError the outcome is unknown, the caller publishes again, and the events' ids tell.

What survives a crash: what was acknowledged. Readers and memberships keep nothing, so they can be thrown away at any
time; a subscription's progress is in its claim, in Postgres.

Why readers are apart from the membership: a Kafka client offers both in one consumer. There, a reader in trouble must
leave the group before it can be replaced, which stops every partition of every member; records arrive before an awaited
seek has ended; and a consumer that does not poll, because its database is away, loses its seat. Here the membership
says only which partitions are ours, polls in a task of its own and fetches nothing. A reader belongs to one partition
number, reads from the claim's offset, and can be replaced without anybody noticing. The price is a connection per
partition number and broker.

Rejected: progress kept in the log (the group's offsets are only a hint for lag tools); Kafka transactions around a
batch (they cannot include Postgres); aiokafka's producer (one failing partition fails all) and its assignors (they keep
state on the class, and know no identities).
"""
