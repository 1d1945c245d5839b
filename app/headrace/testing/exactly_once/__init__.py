"""Proves that a service's own handlers are exactly once: `assert_exactly_once(app, events)`.

```
events ─▶ applied one after the other, with all that they emit ─▶ the log, and what is right
            the same log ─▶ again · rolled back and run again · a process that dies before, or after, the commit
                          · copies · one large batch · other orders across keys · all of it by chance, seeded
                       each comes to the same states, emits, timers and fates ─▶ passed
                       one differs ─▶ fewer events, a simpler schedule ─▶ the smallest counterexample
```
The platform keeps its promise whatever a handler does; what a handler does beside it nobody can undo. So this looks for
what is not the platform's: state that is kept in a global or a closure, an order across keys that is taken for granted,
ids from chance and times from the clock in what is emitted, files and connections.

**A death** is a process that forgets: what the team's code holds in globals, closures and objects is put back to what
it was at the start, and states, seen ids and lanes are read again. **The order of a key** is that of the log, in all
trials. **Emitted events** that the service takes itself are part of the log.

**Tables** of the team's own are compared if there is a database (`tables.py`): each trial is one transaction that is
rolled back. Columns that Postgres fills in (numbers of a sequence, times) are left out.

Not looked at: two handlers at the same time in two threads, the order of one key over two
topics, timers that fire (what is set is compared).

Rejected: a second implementation of the engine, which would prove itself; Hypothesis, whose shrinking knows nothing of
schedules, and which would be a dependency of whoever wants the proof.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from headrace.errors import ConfigurationError
from headrace.testing.application import Application, platform_of
from headrace.testing.exactly_once.report import NotExactlyOnceError, tell
from headrace.testing.exactly_once.schedule import Schedule, schedules
from headrace.testing.exactly_once.shrink import Difference, Found, smallest
from headrace.testing.exactly_once.trial import History, Trials, first_difference
from headrace.testing.loop import Loop

__all__ = ["NotExactlyOnceError", "assert_exactly_once"]


def assert_exactly_once(
    app: Application,
    events: Sequence[Any],
    *,
    runs: int = 50,
    seed: int = 0,
    ignore: Collection[str] = (),
    subscriptions: Collection[str] | None = None,
    database: str | None = None,
) -> None:
    """Apply the events one after the other, then in every way that may happen, and compare what comes of it.

    `runs` is how many ways are made by chance, from `seed`. Fields and columns named in `ignore` may differ.
    `subscriptions` are those that are looked at; all unless given. `database` is the address of one for handlers that
    take a Transaction, as the fixture `headrace_database` gives: its tables are compared, and left as they were.
    Raises: NotExactlyOnceError with the smallest counterexample, ConfigurationError, and what a handler raises when the
    events are applied one after the other.
    """
    if not events:
        raise ConfigurationError("assert_exactly_once: give it some events, best of several keys.")
    trials, loop = Trials(platform_of(app), subscriptions, ignore, database), Loop()
    try:
        found = loop.run(lambda: _search(trials, events, seed=seed, runs=runs))
        if found is not None:
            raise NotExactlyOnceError(tell(found, trials.outside, seed), found)
    finally:
        loop.run(trials.close)
        loop.close()


async def _search(trials: Trials, events: Sequence[Any], *, seed: int, runs: int) -> Found | None:
    async def attempt(history: History, schedule: Schedule) -> Difference | None:
        return first_difference(history, await trials.play(history, schedule), schedule)

    history = await trials.history(events)
    for schedule in schedules(history.keys, seed=seed, runs=runs):
        if (difference := await attempt(history, schedule)) is not None:
            return await smallest(Found(events, history, schedule, difference), trials.history, attempt)
    return None
