"""A service whose states are lists: a lost, a doubled and an overtaken event of a key each show in one value.

What an event does besides, the event itself asks for; so whoever reads the log knows what must have happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Emit, Event, Headrace, Outbox, State, States, Step, Window, keep
from headrace.handlers.verdicts import DeadLetter
from tests.apps import kind
from tests.apps.numbers import next_number
from tests.crash.points import install

NAME = kind.name("lists")
ORDERS, WORK = f"{NAME}-orders", f"{NAME}-work"
BLOCK_SECONDS, HANG_SECONDS = 0.5, 60.0
REMIND_SECONDS = 1.0
DEATHS = Path(os.environ.get("APP_DEATHS", "deaths"))
"""A folder: a file in it says that an event has ended a process."""
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

runs: Counter[tuple[str, int]] = Counter()


class Noted(Event, type="noted", topic=NAME, key="key"):
    """One of a key's events, numbered from 0 without gaps."""

    key: str
    number: int
    trouble: str = ""
    """`fail`: its first run in a process raises. `reject`: it is given up on. `hang`: its first run in a process never
    returns. `block`: it takes a while. `die`: it ends the first process that runs it."""
    echoes: bool = False
    reminds: bool = False
    """A timer is set."""
    tells: bool = False
    """An effect is asked for."""
    orders: str = ""
    """`good` or `bad`: a saga is started, which ends well or not."""


class Echoed(Event, type="echoed", topic=f"{NAME}-echoes", key="key"):
    """What a handler emitted."""

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
windows = events.windows("windows", Numbers, size=timedelta(seconds=1))
events.declare(Mailed, Booked, Windowed)


async def note_async(event: Noted, kept: State[Numbers], emit: Emit) -> None:
    """Do the same; what hangs leaves the event loop to the others."""
    if event.trouble == "hang" and _is_first(event):
        await asyncio.sleep(HANG_SECONDS)
    note(event, kept, emit)


def note(event: Noted, kept: State[Numbers], emit: Emit) -> None:
    """Append the number, and do what is asked for besides."""
    kept.numbers.append(event.number)
    if event.trouble:
        _trouble(event)
    if event.echoes:
        emit(Echoed(key=event.key, number=event.number))
    if event.reminds:
        reminder = Reminded(key=event.key, number=event.number)
        emit(reminder, after=timedelta(seconds=REMIND_SECONDS), name=str(event.number))
    if event.tells:
        emit(Told(key=event.key, number=event.number))
    if event.orders:
        emit(Placed(order=f"{event.key}/{event.number}", is_good=event.orders == "good"))


lists.on(Noted)(kind.choose(note, note_async))


@echoes.on(Echoed)
@kind.of_asked_kind
def hear(events: list[Echoed], kept: States[Numbers]) -> None:
    """Append the numbers."""
    for event in events:
        kept.of(event).numbers.append(event.number)


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
    return [Windowed(key=window.key, number=number) for number in gathered.numbers]


@windows.late
def let_go_late(event: Echoed, window: Window) -> Windowed:
    """Emit the number that is in no window."""
    return Windowed(key=event.key, number=event.number)


@mails.effect(Told, attempts=100)
async def mail(event: Told, step: Step) -> Mailed:
    """Call the outside twice, the first time in a step."""
    await step("call", call, "step", event.key, event.number, step.key)
    await call("mail", event.key, event.number, step.key)
    return Mailed(key=event.key, number=event.number)


async def call(what: str, key: str, number: int, idempotency_key: str) -> None:
    """Add a line to the file of calls, in one piece, and take a moment."""
    line = json.dumps([what, key, number, idempotency_key]) + "\n"
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


def _trouble(event: Noted) -> None:
    if event.trouble == "reject":
        raise DeadLetter("as asked")
    if event.trouble == "fail" and _is_first(event):
        raise ValueError("as asked")
    if event.trouble == "hang" and _is_first(event):
        threading.Event().wait(HANG_SECONDS)
    if event.trouble == "block":
        time.sleep(BLOCK_SECONDS)
    if event.trouble == "die":
        _die_once(DEATHS / f"{event.key}-{event.number}")


def _is_first(event: Noted) -> bool:
    """Count a run; tell whether it is the event's first one in this process."""
    runs[event.key, event.number] += 1
    return runs[event.key, event.number] == 1


def _die_once(file: Path) -> None:
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(9)


class Placed(Event, type="placed", topic=ORDERS, key="order", internal=True):
    """The start of a saga; a bad one is refused its second step."""

    order: str
    is_good: bool


class Reserve(Event, type="reserve", topic=WORK, key="order", internal=True):
    """The first command."""

    order: str


class Release(Event, type="release", topic=WORK, key="order", internal=True):
    """What takes the first step back."""

    order: str


class Pay(Event, type="pay", topic=WORK, key="order", internal=True):
    """The second command."""

    order: str
    is_good: bool


class Reserved(Event, type="reserved", topic=ORDERS, key="order", internal=True):
    """The answer to the first."""

    order: str


class Paid(Event, type="paid", topic=ORDERS, key="order", internal=True):
    """The good answer to the second."""

    order: str


class Refused(Event, type="refused", topic=ORDERS, key="order", internal=True):
    """The bad answer to the second."""

    order: str
    reason: str = "as asked"


class Order(BaseModel):
    """What a saga knows."""

    order: str
    is_good: bool


class Work(BaseModel):
    """What was done for one order, in order."""

    done: list[str] = []


checkout = events.saga("checkout", Order)
work = events.subscription("work")
events.declare(Reserve, Release, Pay, Placed)


@checkout.start(Placed)
def begin(event: Placed) -> Order:
    """Begin."""
    return Order(order=event.order, is_good=event.is_good)


@checkout.step(done=Reserved)
def reserve(order: Order) -> Reserve:
    """The first step."""
    return Reserve(order=order.order)


@reserve.undo
def release(order: Order, reply: Reserved) -> Release:
    """Take it back."""
    return Release(order=order.order)


@checkout.step(done=Paid, failed=Refused)
def pay(order: Order) -> Pay:
    """The second step."""
    return Pay(order=order.order, is_good=order.is_good)


@work.on(Reserve)
@kind.of_asked_kind
def do_reserve(event: Reserve, kept: State[Work]) -> Reserved:
    """Do it."""
    kept.done.append("reserve")
    return Reserved(order=event.order)


@work.on(Release)
@kind.of_asked_kind
def do_release(event: Release, kept: State[Work]) -> None:
    """Do it."""
    kept.done.append("release")


@work.on(Pay)
@kind.of_asked_kind
def do_pay(event: Pay, kept: State[Work]) -> Paid | Refused:
    """Do it, or refuse."""
    if not event.is_good:
        return Refused(order=event.order)
    kept.done.append("pay")
    return Paid(order=event.order)
