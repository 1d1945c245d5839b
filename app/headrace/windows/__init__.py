"""Windows: what the events of a key come to in each minute, hour or day, by the time that the events carry.

```
event ──▶ its windows of its key: opened, or found ──▶ the team's function adds it to the value of each
                │ those that have ended, and for which no event is waited for any more
                ▼
          the team's function makes events of the value ──▶ they leave; the window is forgotten
```
Tumbling windows follow each other (`every` is `size`); sliding ones begin every so often and overlap. They are aligned
to 1970 in UTC: an hour is an hour of the clock.

**A window closes** once an event of its key is later than its end by `lateness`, so that the result follows from the
events and their order alone, whenever they are handled: a log of last year gives what it gave then. A timer closes it
for a key that falls silent: so long after its first event as that one was from the end, and `lateness` more. It is set
when a window opens, and cancelled when an event closes it: a window costs one timer, an event none.

**An event that is too late**, of a window that has closed, is counted in the key's state (`late`) and handed to the
team's function for such events, if there is one. A window that has closed never opens again.

**What survives a crash**: everything. Open windows are the state of the key, and the timer is a row of its own: they
commit with the event that changed them. Windows are a subscription of their own, with its claims, lanes and progress.

**Assumed**: the clocks of producers. An event from the future closes the windows of its key, and of its key alone.

Rejected: a watermark for all keys of a partition (a producer with a wrong clock closes everybody's windows); timers at
the end of a window by the wall clock alone (a replay of old events would close each window with its first event).
"""
