"""Timers: events that a handler emits for later, `emit(event, after=...)`, and may cancel until then.

```
handler ─ emit(event, after=) ─▶ Emitter ─▶ headrace.timer (same transaction as the effect)
                                                 │ due, by the clock of Postgres
   the partition's owner: delete the rows, write them as emits of a ledger row, one transaction ─▶ Relay ─▶ log
```
**Once in effect.** A timer becomes an emit in the transaction that removes it, guarded by the claim as every batch is.
From there it is an emit like any other: a new owner publishes what a dead one committed, and the event's id was made
when the timer was set, so that a second copy is recognised downstream.

**The owner of a partition** fires what handlers on it have set, and nobody else does. A take-over reads when the next
one is due, in one look into an index; a million that are not due are not read.

**No polling.** The owner knows when the next timer is due and waits for that, and for records, at the same time.
Setting an earlier one shortens the wait. Once a minute it compares its own monotonic clock with that of
Postgres, which may have been set, or may have gone on while the machine slept.

**Under load** a batch takes no more than it can apply until the next timer is due, or in `FIRING_SECONDS`, and a run
of handlers ends then, so that a long batch holds none back.

**Schedules** are timers of partition 0, each known by all that it is. The owner that fires one sets the next, in the
same transaction, behind the clock of Postgres: times that have passed come to one event.

Names: a timer is known by the event's type and key and a name, which the handler gives; setting it again moves it.
Without a name it is the event's id, so that a handler that runs again sets the same timer.

Rejected: the lanes' `due_at` (a lane holds its key back), one task per timer (a million tasks, and nobody owns them),
the broker's delays (Kafka has none, and the log cannot take an event back).
"""
