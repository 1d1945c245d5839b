"""The saga of the service `lists`, and the subscription that does its work."""

from __future__ import annotations

from pydantic import BaseModel

from headrace import Emit, Event, Headrace, State
from tests.apps import kind

NAME = kind.name("lists")
ORDERS, WORK = f"{NAME}-orders", f"{NAME}-work"


class Placed(Event, type="placed", topic=ORDERS, key="order", internal=True):
    """The start of a saga, which comes twice; a bad one is refused its last step."""

    order: str
    is_good: bool
    number: int = 0


class Reserve(Event, type="reserve", topic=WORK, key="order", internal=True):
    """The first command."""

    order: str


class Release(Event, type="release", topic=WORK, key="order", internal=True):
    """What takes the first step back."""

    order: str


class Pack(Event, type="pack", topic=WORK, key="order", internal=True):
    """The second command."""

    order: str


class Unpack(Event, type="unpack", topic=WORK, key="order", internal=True):
    """What takes the second step back."""

    order: str


class Pay(Event, type="pay", topic=WORK, key="order", internal=True):
    """The last command."""

    order: str
    is_good: bool


class Reserved(Event, type="reserved", topic=ORDERS, key="order", internal=True):
    """The answer to the first, which comes twice."""

    order: str
    number: int = 0


class Packed(Event, type="packed", topic=ORDERS, key="order", internal=True):
    """The answer to the second."""

    order: str


class Paid(Event, type="paid", topic=ORDERS, key="order", internal=True):
    """The good answer to the last."""

    order: str


class Refused(Event, type="refused", topic=ORDERS, key="order", internal=True):
    """The bad answer to the last."""

    order: str
    reason: str = "as asked"


class Order(BaseModel):
    """What a saga knows."""

    order: str
    is_good: bool


class Work(BaseModel):
    """What was done for one order, in order."""

    done: list[str] = []


def declare(events: Headrace) -> None:
    """Declare both."""
    checkout = events.saga("checkout", Order)
    work = events.subscription("work")
    events.declare(Reserve, Release, Pack, Unpack, Pay, Placed)

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

    @checkout.step(done=Packed)
    def pack(order: Order) -> Pack:
        """The second step."""
        return Pack(order=order.order)

    @pack.undo
    def unpack(order: Order, reply: Packed) -> Unpack:
        """Take it back."""
        return Unpack(order=order.order)

    @checkout.step(done=Paid, failed=Refused)
    def pay(order: Order) -> Pay:
        """The last step."""
        return Pay(order=order.order, is_good=order.is_good)

    @work.on(Reserve)
    @kind.of_asked_kind
    def do_reserve(event: Reserve, kept: State[Work], emit: Emit) -> None:
        """Do it, and answer twice."""
        kept.done.append("reserve")
        emit(Reserved(order=event.order))
        emit(Reserved(order=event.order, number=1))

    @work.on(Release)
    @kind.of_asked_kind
    def do_release(event: Release, kept: State[Work]) -> None:
        """Do it."""
        kept.done.append("release")

    @work.on(Pack)
    @kind.of_asked_kind
    def do_pack(event: Pack, kept: State[Work]) -> Packed:
        """Do it."""
        kept.done.append("pack")
        return Packed(order=event.order)

    @work.on(Unpack)
    @kind.of_asked_kind
    def do_unpack(event: Unpack, kept: State[Work]) -> None:
        """Do it."""
        kept.done.append("unpack")

    @work.on(Pay)
    @kind.of_asked_kind
    def do_pay(event: Pay, kept: State[Work]) -> Paid | Refused:
        """Do it, or refuse."""
        if not event.is_good:
            return Refused(order=event.order)
        kept.done.append("pay")
        return Paid(order=event.order)
