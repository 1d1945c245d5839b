"""What became of an event, from what is kept anyway: no event writes anything for it.

```
id ─▶ lanes and dead letters (they know source and type) ─▶ identities ─▶ ledger ─▶ the log: when, and is it pending?
            search.py                                                     search.py    log_search.py
                                                                             └▶ the rows of its effect and its steps
                                                                                effects.py
```
A ledger row says that a batch applied or parked the event, and at which offset; the lanes and dead letters say which of
both, and why; the row's emits name their cause. The row of an effect stays until its call has ended: it is read in the
same snapshot as the rest, so a row that is missing tells that the call has ended. The answer reaches as far back as the
ids of the dedupe window and the records of the log are kept. Beyond that it says that nothing is known, and not that
nothing happened.
"""
