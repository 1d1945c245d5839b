"""The engine: takes records from the log and makes each event's effect happen exactly once, in order per key.

```
consumer.py (one per subscription and process): its seat in the group
  ├─ worker.py (one per partition number) ─▶ tenure.py: claim ─▶ load ─▶ serve ─▶ close
  │                                            serve: fetch ─▶ log_batches.py ─┐
  │                                                   retry.py (lanes, replays)┴▶ transact.py ─▶ batch.py
  ├─ supervisor.py: how long handlers run, whether workers get anywhere
  └─ watch.py, gauges.py: what is asked of the subscription, what it shows

batch.py, one attempt:  decode ─▶ load ─▶ run ─▶ settle ─▶ write ─▶ remember
                      decode.py  state/  run.py settle.py commit.py memory.py
                                               verdict.py
```
**One transaction per batch** writes states, lanes, dead letters and the ledger row, and ends with
`UPDATE claim … WHERE epoch, token, next_offset, sequence` (claim.py). All of a batch happens, or nothing. The number
of statements does not grow with the batch, which makes it fast: the commit costs a disk flush, all else is by set.

**What becomes of an event that fails** is one pure function, `verdict.py`, of its handler's policy
(`handlers/policy.py`, made complete with the settings in `policies.py`). **What is done about a batch that fails** is
one table, `transact.py`. The event is at fault (its bytes, its data): dead letter. Its handler: the batch runs again
with care, the event is parked, later events of its key wait behind it. Its data as Postgres sees them: the batch is
halved until the one event is found, and parked. A transaction that is too large: the same. Postgres itself: wait, then
the same batch again. Another owner: stop at once.

**An outage is not poison**: if many different keys of a handler fail at once, the run is undone; its partitions wait
and probe with single events (breaker.py).

**What survives a crash**: everything up to the last commit. A new owner claims the partition (epoch + 1), loads what
the previous one had in memory (dedupe window from the ledger, lanes; states when they are needed) and continues at the
claim's next offset. Kafka's group offsets are hints for lag tools and never read.

**Control comes back after each transaction**, which is bounded by records, bytes and the time that handlers take. So a
stop, a pause and a rebalance wait for one transaction at most.

**What exists only while the claims are held** is a field of `Tenure`: holdings, memory, reader. A tenure can be
abandoned at any moment: the next one claims again, which fences whatever the old one still tries to commit, and nobody
waits for a handler that does not return. The supervisor awaits nothing that it watches. If nothing helps, it declares
the process beyond repair, and the process exits with a code that says so.

**Nothing stops a partition.** Whatever goes wrong with one record ends as that record's dead letter. A handler that
does not return is taken out after `HEADRACE_ENGINE_HANDLER_SECONDS`; an event that ends its process is found by the
claim's count of deaths. A living process removes its name from its claims however a worker ends, so that only deaths
are counted as deaths.

**The log belongs to the claim**: each claim knows its cluster, its topic's partitions and the record before its next
offset (continuity.py). A log that does not continue there is refused until an operator accepts it (accept.py).

**Assumed**: one worker per partition number does one thing at a time, so that a partition's batches, retries and
replays need no lock. Nothing is shared between partitions but the pool, so that partitions can live on several servers.

Rejected: a queue between fetch and batch (two bounds to tune instead of one: a worker fetches when it has nothing to
do, and the log client reads ahead); a savepoint per event (a round trip each); `max(Kafka offset, claim)`.
"""
