"""The audit: the platform proves its own promises while it runs.

```
POST /subscriptions/{name}/audit ─┐
headrace audit ───────────────────┼─▶ snapshot.py ─▶ ledger.py, lanes.py ─▶ Report ─▶ record.py ─▶ metrics, an alert
every hour, one process (watch.py)┘    (one repeatable-read snapshot)        (findings.py)
every hour, each process ───────────▶ memory.py: what the owner remembers is what Postgres holds
```
| check | holds if |
| --- | --- |
| `offsets` | each ledger row continues the one before it, without a gap in sequence or offsets, none is of a former |
| | owner, and the last one is where the claim is |
| `ids` | no event id is twice in the dedupe window, and every row has the ids of what it applied and parked |
| `emits` | no row is marked as published that is not committed, and an owner leaves none unmarked for ten minutes |
| `lanes` | a lane has events and an event has a lane; what waits or was given up on stands behind its claim, once, |
| | and in the order of the log; as many events wait as entered and did not leave |
| `states` | every state has a version and a value |
| `memory` | the owner of a partition remembers each state as Postgres holds it |

Any finding is a promise that is broken or was tampered with; so the metric is 0 or somebody is called. What explains a
difference is known: days of the ledger that were dropped, offsets without a record, a claim that a person moved
(`Kind.MOVE`), ids that an added partition inherited (epoch 0), a pause, events put back by a replay.

The audit only reads. It is bounded: the newest rows and ids of each partition, a share of a large table of states, and
half a minute in all, so that its snapshot keeps no rows from being cleaned up for long. It proves what happened lately,
and an hourly one proves it all as long as an hour has fewer than `LEDGER_ROWS` batches per partition.
"""
