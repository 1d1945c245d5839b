"""The machine that tries to break it: real servers, several processes, faults drawn from a seed, and checkers.

```
seed ─ plan.py ─▶ faults, in order ──── faults/ ───┐ kill, freeze, cut, restart, put back
                                                   ▼
load.py ─ events ─▶ Kafka ─ Link ─▶ workers (tests/apps/lists.py) ─ Link ─▶ Postgres ─ watch.sql
posting.py ─ HTTP ────│───────────────▶ points.py: where they die            │
                      └────────▶ evidence.py ◀── tables ─────────────────────┤
history.py ◀── watching.py ◀── each change of a claim, the server's log ─────┘
     └──────▶ checkers/ ─▶ violations ─▶ report/
```
The workload's state is a list of numbers for each key: a lost, a doubled and an overtaken event each show in one value.
What must be in a list is read from the log itself, behind everything; the checkers know nothing of the faults.

**Zombies.** A process is frozen until others hold all that it held, and then goes on. A trigger of the machine's own
writes each statement that asked for a claim to move and changed none into the server's log, with the session's port.
A statement of the frozen process behind its waking is a proven refusal; that the claim has not changed is seen in the
history of claims, where each change names the session that made it.

**Repeatable** are the plan and the events. The timing of servers and processes is not: a violation is kept by a test of
its own once it is understood, and by the simulation where it can be.
"""
