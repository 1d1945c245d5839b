"""The simulator: the engine's own code over models of log, store and clock, on one event loop with virtual time.

```
plan.py: a seed ─▶ processes, events, faults ─▶ run.py ─▶ pod.py: the engine, one per process
                                                  │            │        │
                                    loop.py, clock.py      log/, group  store/: Postgres' tables, locks, sessions
                                                  │
                                                  └─▶ checkers/: what a broken promise would leave, each on its own
```
`make simulate SEEDS=1000` runs seeds; a failing one is shrunk and printed with how to run it again. The same seed gives
the same trace hash: chance comes from the seed alone, and no thread, socket or real clock takes part.

**What is real**: consumers, workers, claims, tenures, batches, lanes, relays, handovers, supervisors.
**What is a model**: the log and its groups (`log/`), Postgres (`store/`), threads (`loop.py`), the clocks (`clock.py`).
`test_store_like_postgres.py` compares the store's answers with those of Postgres.
"""
