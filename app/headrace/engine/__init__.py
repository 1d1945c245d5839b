"""The engine: takes records from the log and makes each event's effect happen exactly once, in order per key.

```
Consumer (one per subscription and process)
  membership ─▶ partitions come and go
  Worker (one per partition number: partition n of every topic of the subscription)
    claim ─▶ load window, lanes ─▶ publish unmarked emits ─▶ read from next_offset
      │
      └─▶ fetch ─▶ read (decode, duplicates) ─▶ states ─▶ run handlers ─▶ one transaction ─▶ fetch …
            ▲            between two batches: due lanes, replays, pause
```

**One transaction per batch** writes states, lanes, dead letters and the ledger row, and ends with
`UPDATE claim … WHERE epoch, token, next_offset` (claim.py). All of a batch happens, or nothing. A number of statements
that does not grow with the batch is what makes it fast: the commit costs a disk flush, the rest goes by set.

**What survives a crash**: everything up to the last commit. A new owner claims the partition (epoch + 1), loads what
the dead one kept in memory (dedupe window from the ledger, lanes; states as they are needed) and goes on at the
claim's next offset. Kafka's group offsets are hints for lag tools and never read.

**Who is at fault** decides what happens: the event (its bytes, its data): dead letter · its handler: the batch runs
again with care, the event is parked, later events of its key wait behind it (run.py, lanes.py) · the data as Postgres
sees them: the batch is halved until the one event is found, and parked · Postgres itself: wait, the same batch again ·
another owner: stop at once.

**State of a worker**: claiming → running ⇄ waiting (Postgres or the log is away) → draining → released, or → fenced →
(still assigned: after one and a half heartbeats) claiming. A partition whose log does not continue where the claim
stands is refused: it stays unowned, readiness says why, all others flow.

**Nothing stops a partition.** A handler that hangs is found by the watch (no progress for `stuck_seconds`) and its
event is parked; one that kills the process is found by the claim's count of deaths. Batches adapt to what takes two
seconds, so that slow handlers hold no lock for long. A living process takes its name out of its claims however a worker
ends, so that only deaths are counted as deaths.

**Assumed**: one Worker per partition number does one thing at a time, so that a partition's batches, retries and
replays need no lock. Nothing is shared between partitions but the pool, so that partitions can live on several servers.

Rejected: a queue between fetch and batch (two bounds to tune instead of one: a worker fetches when it has nothing to
do, and the log client reads ahead); a savepoint per event (a round trip each); `max(Kafka offset, claim)`.
"""
