"""The outbox: events that commit together with a service's own SQL, and are published behind the commit.

```
route: own SQL, tx.emit() ──┐ one transaction
outbox(session).publish() ──┴▶ headrace.outbox ─▶ commit ─▶ wake, or NOTIFY ─▶ relay.py ─▶ log ─▶ row deleted
```
`transaction.py` is asyncpg's way in, `session.py` SQLAlchemy's; `rows.py` says what a row is, `slots.py` which process
publishes which rows, and `relay.py` does it.

**Order per key is the order of the commits.** A trigger takes an advisory lock of the key's bucket (one of 1,024) and
then the row's number; the lock lasts until the transaction ends. So of two transactions with one key the later commit
has the higher number, at every isolation level. `events.transaction()` writes its rows right before the commit, so
that the bucket is held for the commit alone.

**No row is skipped.** The numbers come from a sequence, and numbers of different keys may become visible in any order.
So the relay remembers no number: a pass reads whatever rows there are from the front, and what was published is
deleted (tests/integration/outbox/test_order.py commits a lower number after a higher one was published).

**Ownership** only keeps two processes from doing the same work: a key belongs to one of 64 slots, a slot to the session
that holds its advisory lock, and each relay takes its fair share. A process that dies loses its session, and so its
slots, at once; one that hangs loses it after 15 s (`idle_session_timeout`). What a relay publishes after it has lost a
slot is recognised, since the event's id is in the row: the first copy of each event is in order whoever is slow.

**What survives a crash**: every committed row. It is published again if the process dies between the log's answer and
the deletion; the copy has the same id, so subscriptions recognise it. The deletion is not flushed to disk for that
reason.

**An event that the log never takes** becomes a dead letter of the subscription `outbox` (reason `emit_refused`), and
the others leave. A partition of the log that is away holds back its own events only.

**NOTIFY is not part of the transaction**: Postgres lets no two transactions that notify commit at the same time, so all
routes would share one lock. The process that has committed wakes its own relay, or notifies afterwards.

Rejected: a cursor over the numbers (skips what commits late); waiting for the oldest transaction (`pg_snapshot_xmin`:
one slow report stops every event); `for update skip locked` pollers (no order per key); the claims of the engine (they
come with partitions, and a route's process may own none); logical decoding (a setting of the server).
"""
