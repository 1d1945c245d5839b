"""The engine: takes records from the log and makes each event's effect happen exactly once, in order per key.

```
consumer.py (one per subscription and process): its seat in the group
  ├─ worker.py (one per partition number) ─▶ tenure.py: begin ─▶ serve ─▶ close
  │                              begin: takeover.py: claim.py, continuity.py, load ─▶ timers.py, outside.py
  │                              serve: replays.py, fetch ─▶ log_batches.py ─┐
  │                             beside: lanes that are due ─▶ retry.py ──────┴▶ transact.py ─▶ batch.py
  ├─ supervisor.py: whether workers get anywhere
  └─ watch.py, gauges.py: what is asked of the subscription, what it shows

batch.py, one attempt:  decode ─▶ load ─▶ run ─▶ (the turn) settle ─▶ write ─▶ remember
                      decode.py  state/ run.py, attend.py  settle.py commit.py memory.py
                                                           verdict.py
```
**One transaction per batch** writes states, lanes, dead letters and the ledger row, and ends with `UPDATE claim … WHERE
epoch, token, next_offset, sequence` (claim.py). All of a batch happens, or nothing. The number of statements does not
grow with the batch, which makes it fast: the commit costs a disk flush, all else is by set. Small batches of a process
share a transaction, of one statement (group_commit.py), and what they ask of states is read together (group_read.py).

**What becomes of an event that fails** is one pure function, `verdict.py`, of its handler's policy
(`handlers/policy.py`, made complete with the settings in `policies.py`). **What is done about a batch that fails** is
one table, `transact.py`. The event is at fault (its bytes, its data): dead letter. Its handler: the batch runs again
with care, the event is parked, later events of its key wait behind it. Its data as Postgres sees them: the batch is
halved until the one event is found, and parked. A transaction that is too large: the same. Postgres itself, or the
schema registry of a foreign topic: wait, then the same batch again. Another owner: stop at once.

**An outage is not poison**: if many different keys of a handler fail at once, the run is undone; its partitions wait
and probe with single events (breaker.py).

**A key that hangs, is slow or fails delays that key only.** Lanes run beside the batches of their partition: all that
are due in one run, and each key whose events took long in a run of its own. Handlers run at the same time; what they
did is settled, written and remembered in turns, and a turn lasts until the outcome of its COMMIT is known. So commits
of a partition follow each other as if one task made them: claim, ledger, window, lanes and relay have no other lock. It
is correct since a key is at any time either the lane's or the batches': a batch holds back the events of keys that have
a lane *before* it runs, only a lane ends its own key's being parked, and only a batch begins it. A lane's run reads the
states of its keys anew, and the batches forget them when it has changed them.

**Only what has ended its process is blamed for it** (company.py). What has died twice at one place of the log, or in
its lane, runs while nothing else of the process does, for as long as others can be asked to wait.

**Nobody waits for a call that does not return** (patience.py). A run's handlers have a thread or a task of their own.
If a call takes longer than half a second, and few do, the run is undone and goes on without that event, which its lane
runs with its whole time limit. The key's next events go to the lane at once, until one of them is quick. If calls often
take so long, each has its whole limit; an event that comes to it has used up an attempt, and is not tried again by the
same batch. Lanes have places of their own in the pool of threads, and their handlers' transactions hold at most a
quarter of the connections, and neither the turn nor the claim's row. What a handler's own SQL locks, it locks for
others as well, until it has ended.

**What survives a crash**: everything up to the last commit. A new owner claims the partition (epoch + 1), loads what
the previous one had in memory (dedupe window from the ledger, lanes; states when they are needed) and continues at the
claim's next offset. Kafka's group offsets are hints for lag tools and never read.

**Control comes back after each transaction**, which is bounded by records, bytes and the time that handlers take. So a
stop, a pause and a rebalance wait for one transaction at most.

**What exists only while the claims are held** is a field of `Tenure`: holdings, memory, reader. A tenure can be
abandoned at any moment: the next one claims again, which fences whatever the old one still tries to commit, and nobody
waits for a handler that does not return. The supervisor awaits nothing that it watches. If nothing helps, it declares
the process beyond repair, and the process exits with a code that says so.

**Nothing stops a partition.** Whatever goes wrong with one record ends as that record's dead letter. An event that ends
its process is found by the claim's count of deaths. A living process removes its name from its claims however a worker
ends, so that only deaths are counted as deaths.

**The log belongs to the claim**: each claim knows its cluster, its topic's partitions and the record before its next
offset (continuity.py). A log that does not continue there is refused until an operator accepts it (accept.py).

**After a death** the next owner runs one parked event at a time, in the batches' place, for a minute: else it could not
be told whether a batch or a lane ended the process.

**Assumed**: one worker per partition number applies batches, replays and timers, one at a time. Nothing is shared
between partitions but the pool and the commits of small batches, so that partitions can live on several servers.

Rejected: a queue between fetch and batch (two bounds to tune instead of one: a worker fetches when it has nothing to
do, and the log client reads ahead); a savepoint per event (a round trip each); lanes in transactions beside the claim's
(two writers of a partition need a lock for each thing that both write, and a restored database shows a part of them);
`max(Kafka offset, claim)`.
"""
