"""Sagas: work of several steps, each in another place, that ends as a whole or is undone.

```
 start ─▶ step 1 ─▶ step 2 ─▶ ... ─▶ completed
             │         │ a step fails, or its time is up
             ▼         ▼
          undo 1 ◀── undo 2 (what was done, in reverse order) ─▶ compensated, timed_out
```
A saga is a subscription whose handlers are made of its steps. A step emits **commands**, and waits for a **reply** to
each: `done` or `failed`. All events that a saga takes have its key, so they come one after the other, and everything is
what a handler does anyway: its state, its emits and its timers commit together, exactly once.

**Each success is undone once, and nothing else is.** A reply `done` is kept as a receipt; compensation makes the undo
commands of the receipts, the last one first. What was refused is not undone. A success that is told after the saga has
failed, because its step was late, is undone when it is told. So the other side needs no memory of what it was asked.

**Late and doubled events** (a reply after the end, a time-out of a step that is over, a second start) change nothing.

`saga.py` is what a team declares, `kept.py` what is remembered of one saga, `course.py` how an event moves it on,
`diagram.py` its picture. `store.py` follows the states in `headrace.saga`, so that open sagas are found.

Rejected: one undo of a whole step (the other side would have to remember what it did, and for how long?), a class with
a method per event (the order of the steps would stand nowhere), waiting inside of a handler (it holds its partition).
"""

from headrace.sagas.saga import Saga

__all__ = ["Saga"]
