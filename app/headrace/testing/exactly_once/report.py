"""Tells a counterexample: which events, how they were applied, what differed, and where to look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from headrace.testing.exactly_once.outside import Outside, differences
from headrace.testing.exactly_once.schedule import Label, Schedule, one_by_one
from headrace.testing.exactly_once.shrink import Found
from headrace.testing.exactly_once.tables import more_in

MOST_CHARACTERS = 300


class NotExactlyOnceError(AssertionError):
    """A schedule that may happen comes to something else than applying the events one after the other."""

    def __init__(self, told: str, found: Found) -> None:
        super().__init__(told)
        self.events = list(found.events)
        """The fewest events that show it."""
        self.schedule = found.schedule
        self.difference = found.difference


def tell(found: Found, outside: Outside, seed: int) -> str:
    """Return the counterexample as a person reads it."""
    numbers = {label: number for number, label in enumerate(found.history.log, 1)}
    culprit, what = _what_differed(found, numbers)
    lines = [f"{culprit} is not exactly once: {what[0]}", "", "The events:"]
    lines += [f"  {line}" for line in _events(found, numbers)]
    lines += ["", "What happened:", *(f"  {line}" for line in _happened(found.schedule, numbers, list(numbers)))]
    lines += ["", *what[1:], *_advice(found, outside), f"Repeat it with assert_exactly_once(..., seed={seed})."]
    return "\n".join(lines)


def _what_differed(found: Found, numbers: dict[Label, int]) -> tuple[str, list[str]]:
    """Return what is at fault, and the lines that say what differed: one in short, then what was and what is."""
    kind, place, right, wrong = found.difference
    handlers = found.history.result.handlers
    if kind == "state":
        subscription, state, key = place
        events = [label for (name, label), _ in handlers.items() if name == subscription]
        last = next((label for label in reversed(events) if found.history.log[label].key == key), None)
        culprit = handlers[subscription, last] if last is not None else subscription
        return culprit, [f"the state {state} of {key!r} differs.", *_both(*_changed(right, wrong))]
    if kind == "emit":
        subscription, label, _ = place
        return handlers.get((subscription, label), subscription), [
            f"what it emits for event {numbers[label]} differs.",
            *_both(_left(right), _left(wrong)),
        ]
    if kind == "fate":
        subscription, label = place
        return handlers.get((subscription, label), subscription), [
            f"what becomes of event {numbers[label]} differs.",
            *_both(right or "not handled", wrong or "not handled"),
        ]
    if kind == "table":
        subscription, last = next(reversed(handlers))
        return handlers[subscription, last], [
            f"the rows of {place} differ.",
            *_both(_only(more_in(right, wrong)), _only(more_in(wrong, right))),
        ]
    if kind == "did":
        handler, _, does = place.partition(" ")
        return handler, [f"it {does}, which no rollback undoes.", *_both(f"{right} times", f"{wrong} times")]
    culprit = next(reversed(handlers.values()), "a handler")
    return culprit, [f"it changes {place}, which no rollback undoes.", *_both(_short(right), _short(wrong))]


def _both(right: str, wrong: str) -> list[str]:
    return [f"One after the other:  {right}", f"As it happened here:  {wrong}"]


def _only(rows: list[Any]) -> str:
    return f"also {', '.join(map(_short, rows))}" if rows else "no row more"


def _changed(right: Any, wrong: Any) -> tuple[str, str]:
    """Return both values, of two objects only the members that differ."""
    if isinstance(right, dict) and isinstance(wrong, dict):
        names = [name for name in right | wrong if right.get(name) != wrong.get(name)]
        return (_short({name: each.get(name) for name in names}) for each in (right, wrong))  # type: ignore[return-value]
    return _short(right), _short(wrong)


def _left(emitted: Any) -> str:
    if emitted is None:
        return "nothing"
    when, type_, key, data = emitted
    return f"{type_} with the key {key!r}{'' if when == 'now' else f', {when}'}: {_short(data)}"


def _events(found: Found, numbers: dict[Label, int]) -> Iterator[str]:
    for label, entry in found.history.log.items():
        cause = "" if entry.cause is None else f"   (emitted for {numbers[entry.cause]})"
        data = (entry.record.value or b"").decode(errors="replace")
        data = _short(json.loads(data).get("data")) if data.startswith('{"') and '"data"' in data else data
        yield f"{numbers[label]}  {entry.envelope.type}  key {entry.key!r}  {data[:MOST_CHARACTERS]}{cause}"


def _happened(schedule: Schedule, numbers: dict[Label, int], log: list[Label]) -> Iterator[str]:
    if schedule == one_by_one(log):
        yield "The same events were applied in the same order a second time, from the same start."
        return
    seen: set[Label] = set()
    for batch in schedule:
        copies = [label for index, label in enumerate(batch.events) if label in seen or label in batch.events[:index]]
        seen.update(batch.events)
        which = " and ".join(str(numbers[label]) for label in batch.events)
        together = ", in one transaction" if len(batch.events) > 1 else ""
        copied = f" ({', '.join(str(numbers[label]) for label in copies)} is a copy)" if copies else ""
        if batch.fate == "commit":
            yield f"{which} applied{together}{copied}."
        elif batch.fate == "rolled back":
            yield f"{which} applied{together}{copied}, but the transaction was rolled back; applied again."
        elif batch.fate == "dies before":
            yield f"{which} applied{together}{copied}, but the process died before the commit; another one applied it."
        else:
            yield f"{which} applied{together}{copied}, then the process died; another one read it again."


def _advice(found: Found, outside: Outside) -> Iterator[str]:
    kind = found.difference[0]
    changed = list(differences(outside.first, found.history.result.outside))
    if kind == "did":
        yield "Do it behind the commit: emit an event, and let another service or a route do it with the event's id."
    elif changed:
        yield (
            f"The handlers change {', '.join(changed)}: it is not undone with a transaction, not kept when a process "
            "ends, and shared by all keys. Keep it in a State."
        )
    else:
        yield (
            "A handler that runs again must come to the same: take ids and times from the event or its Envelope, not "
            "from uuid, random or the clock. A field that may differ: ignore=['name']."
        )


def _short(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
