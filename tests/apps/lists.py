"""A service whose states are lists: a lost, a doubled and an overtaken event of a key each show in one value.

What an event does besides, the event itself asks for; so whoever reads the log knows what must have happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fastapi import FastAPI, Request
from pydantic import BaseModel

from headrace import Emit, Event, Headrace, InSequence, Outbox, State, States, Step, Window, keep
from headrace.audit.memory import audit_memory
from headrace.engine.worker import Phase
from headrace.http.runtime_of import runtime_of
from tests.apps import kind, lists_sagas, lists_trouble
from tests.apps.lists_numbers import EARLIER, EARLIER_SECONDS, FAILING, HEARD, RAISING, REMIND_SECONDS
from tests.apps.lists_sagas import Placed
from tests.apps.numbers import next_number
from tests.crash.points import install

NAME = kind.name("lists")
CALLS = Path(os.environ.get("APP_CALLS", "calls"))
"""A file with a line for each call to the outside."""
BOOKINGS = """
create table account (name text primary key, number integer not null);
create table booking (request text primary key, account text not null, number integer not null);
"""
"""The tables of the route."""

events = Headrace(NAME)
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
install()


class Noted(Event, type="noted", topic=NAME, key="key"):
    """One of a key's events, numbered from 0 without gaps."""

    key: str
    number: int
    trouble: str = ""
    """`fail`: its first runs in a process raise. `reject`: it is given up on. `hang`: its first run in a process never
    returns. `block`: it takes a while. `die`: it ends the first process that runs it."""
    echoes: bool = False
    reminds: bool = False
    """A timer is set."""
    tells: bool = False
    """An effect is asked for."""
    orders: str = ""
    """`good` or `bad`: a saga is started, which ends well or not."""


class Doomed(Event, type="doomed", topic=NAME, key="key"):
    """One of a key's events that waits in a lane, and ends each process that runs it there."""

    key: str
    number: int


class Stepped(Event, type="stepped", topic=f"{NAME}-steps", key="key"):
    """One of a key's events that is applied in sequence."""

    key: str
    number: int


class Echoed(Event, type="echoed", topic=f"{NAME}-echoes", key="key"):
    """What a handler emitted. `at` is what it is about, in Unix seconds: for some a time that is over."""

    key: str
    number: int
    at: float


class Heard(Event, type="heard", topic=f"{NAME}-echoes", key="key"):
    """What a handler of lists emitted."""

    key: str
    number: int


class Reminded(Event, type="reminded", topic=f"{NAME}-echoes", key="key"):
    """What a timer emitted."""

    key: str
    number: int


class Mailed(Event, type="mailed", topic=f"{NAME}-echoes", key="key"):
    """What an effect emitted."""

    key: str
    number: int


class Booked(Event, type="booked", topic=f"{NAME}-echoes", key="key"):
    """What a route emitted through the outbox."""

    key: str
    number: int


class Windowed(Event, type="windowed", topic=f"{NAME}-echoes", key="key"):
    """What a window emitted for each number in it, or for one that came too late."""

    key: str
    number: int
    start: str
    count: int = 0
    """Of the window's numbers; 0 for one that came too late."""


class Told(Event, type="told", topic=f"{NAME}-told", key="key"):
    """What an effect is for."""

    key: str
    number: int


class Sided(Event, type="sided", topic=f"{NAME}-side", key="key"):
    """One of a key's events on a topic whose log is meddled with."""

    key: str
    number: int


class Numbers(BaseModel):
    """What was applied to one key, in order."""

    numbers: list[int] = []


class Reminders(Numbers):
    """The reminders of one key."""


@keep(ttl=timedelta(seconds=1))
class Recent(Numbers):
    """The reminders of one key since the state expired last."""


class Mails(Numbers):
    """The mails of one key."""


class Bookings(Numbers):
    """The bookings of one account."""


lists = events.subscription("lists")
echoes = events.subscription("echoes")
mails = events.subscription("mails")
side = events.subscription("side")
steps = events.subscription("steps", order=InSequence(by=lambda event: event.number, first=0, wait_seconds=600))
windows = events.windows(
    "windows", Numbers, size=timedelta(seconds=1), time=lambda event: datetime.fromtimestamp(event.at, UTC)
)
events.declare(Mailed, Booked, Windowed, Heard)
lists_sagas.declare(events)


async def note_async(event: Noted, kept: State[Numbers], emit: Emit) -> None:
    """Do the same; what hangs leaves the event loop to the others."""
    if event.trouble == "hang" and lists_trouble.is_first(_place(event)):
        await asyncio.sleep(lists_trouble.HANG_SECONDS)
    note(event, kept, emit)


def note(event: Noted, kept: State[Numbers], emit: Emit) -> None:
    """Append the number, do what is asked for besides, and make trouble behind all of it."""
    kept.numbers.append(event.number)
    if event.echoes:
        earlier = EARLIER_SECONDS if event.number % EARLIER == 0 else 0.0
        emit(Echoed(key=event.key, number=event.number, at=time.time() - earlier))
    if event.reminds:
        reminder = Reminded(key=event.key, number=event.number)
        emit(reminder, after=timedelta(seconds=REMIND_SECONDS), name=str(event.number))
    if event.tells:
        emit(Told(key=event.key, number=event.number))
    if event.orders:
        for number in range(2):
            emit(Placed(order=f"{event.key}/{event.number}", is_good=event.orders == "good", number=number))
    if event.trouble:
        lists_trouble.make(event.trouble, _place(event))


lists.on(Noted)(kind.choose(note, note_async))


@lists.on(Doomed, attempts=3)
@kind.of_asked_kind
def end(event: Doomed) -> None:
    """Raise, and later end the process."""
    lists_trouble.end_each_process(f"{event.key}-{event.number}")


@steps.on(Stepped)
@kind.of_asked_kind
def step(event: Stepped, kept: State[Numbers]) -> None:
    """Append the number."""
    kept.numbers.append(event.number)


@echoes.on(Echoed)
@kind.of_asked_kind
def hear(events: list[Echoed], kept: States[Numbers], emit: Emit) -> None:
    """Append the numbers, and emit some; a few lists raise behind it."""
    for event in events:
        kept.of(event).numbers.append(event.number)
        if event.number % HEARD == 0:
            emit(Heard(key=event.key, number=event.number), cause=event)
    for event in events:
        if event.number % RAISING == 0:
            lists_trouble.fail(f"heard {event.key}-{event.number}")


@echoes.on(Reminded)
@kind.of_asked_kind
def remember(event: Reminded, kept: State[Reminders], recent: State[Recent]) -> None:
    """Append the number."""
    kept.numbers.append(event.number)
    recent.numbers.append(event.number)


@echoes.on(Mailed)
@kind.of_asked_kind
def receive(event: Mailed, kept: State[Mails]) -> None:
    """Append the number."""
    kept.numbers.append(event.number)


@echoes.on(Booked)
@kind.of_asked_kind
def enter(event: Booked, kept: State[Bookings]) -> None:
    """Append the number."""
    kept.numbers.append(event.number)


@side.on(Sided)
@kind.of_asked_kind
def put_aside(event: Sided, kept: State[Numbers]) -> None:
    """Append the number."""
    kept.numbers.append(event.number)


@windows.on(Echoed)
def gather(gathered: Numbers, event: Echoed) -> None:
    """Append the number."""
    gathered.numbers.append(event.number)


@windows.closed
def let_go(gathered: Numbers, window: Window) -> list[Windowed]:
    """Emit each number."""
    start, numbers = window.start.isoformat(), gathered.numbers
    return [Windowed(key=window.key, number=each, start=start, count=len(numbers)) for each in numbers]


@windows.late
def let_go_late(event: Echoed, window: Window) -> Windowed:
    """Emit the number that is in no window."""
    return Windowed(key=event.key, number=event.number, start=window.start.isoformat())


@mails.effect(Told, attempts=100)
async def mail(event: Told, step: Step) -> Mailed:
    """Call the outside twice, the first time in a step; the second answer of a few is an error, once in a process."""
    await step("call", call, "step", event.key, event.number, step.key)
    await call("mail", event.key, event.number, step.key)
    if event.number % FAILING == 0 and lists_trouble.is_first(f"mail {event.key}-{event.number}"):
        raise ConnectionError("as asked")
    return Mailed(key=event.key, number=event.number)


async def call(what: str, key: str, number: int, idempotency_key: str) -> None:
    """Add a line to the file of calls, in one piece, and take a moment."""
    line = json.dumps([what, key, number, idempotency_key, time.time(), os.getpid()]) + "\n"
    file = os.open(CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
    await asyncio.sleep(0.01)


@app.post("/bookings/{account}/{request}", status_code=201)
async def book(account: str, request: str, tx: Outbox) -> None:
    """Give the account its next number. A request that comes again, because it got no answer, changes nothing."""
    if (number := await next_number(tx, account, request)) is None:
        return
    tx.emit(Booked(key=account, number=number))


@app.get("/memory")
async def remembered(request: Request) -> list[str]:
    """Tell what this process remembers of its partitions otherwise than Postgres has it."""
    runtime = runtime_of(request)
    return [
        f"{consumer.group}/{number}: {finding.detail}"
        for consumer in runtime.consumers.values()
        for number, worker in list(consumer.workers.items())
        if worker.phase is Phase.RUNNING and worker.tenure is not None
        for finding in await audit_memory(worker.tenure.processor.context, consumer.group, number, worker.tenure)
    ]


def _place(event: Noted) -> str:
    return f"{event.key}-{event.number}"
