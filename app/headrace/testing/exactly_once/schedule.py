"""How a log is consumed: in which order across keys, in which batches, with which copies, and where a process dies."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

Label = str
"""What names an event of the log, whatever else is in it."""

Fate = Literal["commit", "rolled back", "dies before", "dies after"]
FATES: tuple[Fate, ...] = ("commit", "rolled back", "dies before", "dies after")
"""`rolled back`: the handlers run, nothing is committed, and the same process runs the batch again. `dies before`: the
same, and it is another process that runs it again. `dies after`: it is committed, and another process gets it again."""


class Batch(NamedTuple):
    """Events that are applied in one transaction."""

    events: tuple[Label, ...]
    fate: Fate = "commit"


Schedule = tuple[Batch, ...]


def one_by_one(labels: Sequence[Label], fate: Fate = "commit") -> Schedule:
    """Return each event as a batch of its own, in the order of the log."""
    return tuple(Batch((label,), fate) for label in labels)


def schedules(keys: Mapping[Label, str], *, seed: int, runs: int) -> Iterator[Schedule]:
    """Yield what is tried, the simplest first: `keys` are the keys of the log's events, in its order."""
    labels = list(keys)
    yield one_by_one(labels)
    yield one_by_one(labels, "rolled back")
    yield one_by_one(labels, "dies before")
    yield one_by_one(labels, "dies after")
    yield tuple(Batch((label, label)) for label in labels) + one_by_one(labels)
    yield (Batch(tuple(labels)),)
    yield one_by_one(interleaved(keys, _first_key_last(keys)))
    for run in range(runs):
        yield by_chance(keys, random.Random(f"{seed}/{run}"))  # noqa: S311 - seeded, so that it can be repeated


def by_chance(keys: Mapping[Label, str], chance: random.Random) -> Schedule:
    """Return the log in another order across keys, in batches of chance, with copies and deaths."""
    slots = list(keys.values())
    chance.shuffle(slots)
    labels = interleaved(keys, slots)
    batches: list[Batch] = []
    while labels:
        size = chance.choice((1, 1, 2, 3, 5, 8))
        batch, labels = labels[:size], labels[size:]
        if chance.random() < 0.2:
            done = [label for each in batches for label in each.events] + batch
            batch.append(chance.choice(done))
        fate = chance.choices(FATES, (4, 2, 2, 1))[0]
        batches.append(Batch(tuple(batch), fate))
    return tuple(batches)


def interleaved(keys: Mapping[Label, str], slots: Sequence[str]) -> list[Label]:
    """Return the events with the keys in the order of `slots`, and those of each key in the order of the log."""
    waiting: dict[str, list[Label]] = {}
    for label, key in keys.items():
        waiting.setdefault(key, []).append(label)
    return [waiting[key].pop(0) for key in slots if waiting.get(key)]


def fitted(schedule: Schedule, keys: Mapping[Label, str]) -> Schedule:
    """Return the schedule for a log that lacks some of its events, or has others: those come last."""
    first: list[str] = []
    seen: set[Label] = set()
    for batch in schedule:
        first += [keys[label] for label in batch.events if label in keys and label not in seen]
        seen.update(batch.events)
    order = interleaved(keys, [*first, *(key for label, key in keys.items() if label not in seen)])
    waiting, done, batches = list(order), set[Label](), list[Batch]()
    known: set[Label] = set()
    for batch in schedule:
        events: list[Label] = []
        for label in batch.events:
            if label not in keys:
                continue
            if label in known:
                events += [label] if label in done else []
                continue
            known.add(label)
            events.append(waiting.pop(0))
            done.add(events[-1])
        if events:
            batches.append(Batch(tuple(events), batch.fate))
    return (*batches, *one_by_one(waiting))


def simpler(schedule: Schedule, log: Sequence[Label]) -> Iterator[Schedule]:
    """Yield schedules that differ by one thing less from applying the events one after the other."""
    if len(schedule) > 1 or any(len(batch.events) > 1 for batch in schedule):
        yield _only_first(one_by_one(log), schedule)
    for index, batch in enumerate(schedule):
        before, after = schedule[:index], schedule[index + 1 :]
        if batch.fate != "commit":
            yield (*before, batch._replace(fate="commit"), *after)
        if len(batch.events) > 1:
            parts = [Batch((label,), batch.fate) for label in batch.events]
            yield (*before, *parts, *after)
    seen: set[Label] = set()
    for index, batch in enumerate(schedule):
        for place, label in enumerate(batch.events):
            if label in seen:
                rest = batch.events[:place] + batch.events[place + 1 :]
                kept = (batch._replace(events=rest),) if rest else ()
                yield (*schedule[:index], *kept, *schedule[index + 1 :])
            seen.add(label)
    yield from _nearer_to_the_log(schedule, log)


def _nearer_to_the_log(schedule: Schedule, log: Sequence[Label]) -> Iterator[Schedule]:
    place = {label: index for index, label in enumerate(log)}
    flat = [label for batch in schedule for label in batch.events]
    for index in range(len(flat) - 1):
        if place[flat[index]] > place[flat[index + 1]]:
            swapped = [*flat]
            swapped[index : index + 2] = flat[index + 1], flat[index]
            labels = iter(swapped)
            yield tuple(batch._replace(events=tuple(next(labels) for _ in batch.events)) for batch in schedule)


def _only_first(plain: Schedule, schedule: Schedule) -> Schedule:
    """Return the plain schedule with the fates that the first copies of the events have in the other one."""
    fates: dict[Label, Fate] = {}
    for batch in schedule:
        for label in batch.events:
            fates.setdefault(label, batch.fate)
    return tuple(batch._replace(fate=fates[batch.events[0]]) for batch in plain)


def _first_key_last(keys: Mapping[Label, str]) -> list[str]:
    """Return the keys grouped, the last one of the log first: the plainest order that is not the log's."""
    groups = list(dict.fromkeys(keys.values()))
    return [key for key in reversed(groups) for each in keys.values() if each == key]
