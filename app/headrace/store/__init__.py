"""The event store: streams of events with versions, kept for good in Postgres, and published in their order.

```
events.store(tx).append(stream, key, events, expected) ──┐ one transaction
 stream: version n ─▶ n + 1   stream_event: n + 1        ├──▶ commit ─▶ the outbox's relay ─▶ topic, key = the stream's
 outbox: a row of it                                     ┘
```
`transactions.py` says whose transaction it works in: a route's, a handler's batch, a SQLAlchemy session's, or one of
its own. `store.py` is what a team calls, `stored.py` what is read. Aggregates are declared in `aggregates/`.

**A version is given once.** Who appends holds the stream's row until its commit. An append that expects a version waits
for whoever holds the row, then finds it moved on, and raises `VersionConflictError`. So versions have no gaps, and they
are committed in their order.

**Events leave in the order of their stream, and none is skipped**, since they leave by the outbox. The key of what is
published is the stream's key, and the outbox keeps the order of the commits for each key. There is no number over all
streams that a reader could pass: one that is taken first and committed last is no hole
(tests/integration/store/test_order.py holds it open, and publishes around it).

**Exactly once in a handler**: an append is SQL of the batch's transaction. The rows of its outbox are written with it,
not at the batch's end, so that the savepoint of an event that fails takes them back.

**Ids are derived**, `stream/key/version`: what is published twice after a crash is recognised. `appended_at` comes from
the database while the row is held, and never goes back within a stream, so reading at a time finds whole appends.

**A snapshot is only a short cut.** Its revision names the fields of the state's class and the aggregate's `version`;
another revision's is not read, and all events are.

Rejected: a global position (a sequence that all streams share, with holes that readers must wait for), publishing by
the batch's own relay (a route's events of the same stream would overtake), a lock on each load (readers would wait).
"""
