"""Effects: calls to the outside, for events whose transaction has committed.

```
batch ─ applied ─▶ headrace.effect (same transaction) ─▶ Calls, in memory, by key
                                                            │ one call of a key at a time, many keys at once
   rows leave by set, with what was returned as emits  ◀── done │ failed ──▶ waits in its key, tried again
   of a ledger row, one transaction about every 50 ms           └ given up ──▶ dead letter
```
**At least once, with one key.** The row is written with the batch that took the event, and removed once the call is
done. An owner that dies in between leaves it to the next, which calls again with the same `step.key`. The answers of
steps are kept as they come (`steps.py`), several in one statement, so that a second run asks the outside only for what
is missing.

**In order per key.** The next call of a key begins when the one before it is done, or given up on. Different keys do
not wait for each other.

**Owned with the partition**, as timers are: a tenure loads the rows of its partition, makes the calls
(`engine/calling.py`) within the effect's limits (`engine/call_limits.py`), and writes what came of them through its
claim (`engine/outside.py`). A batch waits while too many calls do, so that all of them are in memory, and a slow
outside shows as lag. Only what is behind a held call is left in Postgres until that has ended: it counts for nobody.

**What fails** has the policy of a handler: attempts, waits, verdicts. The retry waits in memory and in the row. If many
keys fail at once, a breaker of the effect lets single calls probe, and no attempt counts (`engine/breaker.py`).

**Deaths count.** Nothing is written before a call begins. So the death of an owner counts as an attempt of all that it
may have been running, which is the front call of each key, if it is due and the subscription is not paused. An effect
that ends its process comes to the end of its attempts as any other.

Rejected: acknowledging records of the log out of order (a claim has one offset, and a set of done ones beside it would
be this table); lanes for failed calls (the engine runs them one after the other, inside of a transaction).
"""
