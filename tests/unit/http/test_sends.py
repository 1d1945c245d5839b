"""What a service sends, as far as its declarations tell."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pydantic import BaseModel

from headrace import Aggregate, Emit, Event, Headrace, Window, applies
from headrace.http.asyncapi import build_asyncapi
from headrace.http.sends import senders

events = Headrace("senders")


class Asked(Event, type="asked", topic="money", key="name"):
    name: str


class Answered(Event, type="answered", topic="money", key="name"):
    name: str


class Counted(Event, type="counted", topic="sums", key="name"):
    name: str


class Opened(Event, type="opened", topic="money", key="name"):
    name: str


class Night(Event, type="night", topic="money"):
    """Has no field."""


class Named(BaseModel):
    name: str = ""


@dataclass
class Has:
    amount: int = 0


class Account(Aggregate[Has], stream="account"):
    @applies(Opened)
    def opened(self, event: Opened) -> None:
        self.state.amount = 1


events.declare(Answered, Counted, Night, Account)
plain = events.subscription("plain")
calls = events.subscription("calls")
silent = events.subscription("silent")
counts = events.windows("counts", Named, size=timedelta(minutes=1))
trade = events.saga("trade", Named)
plain.schedule(Night(), "0 0 * * *")


@plain.on(Asked)
def answer(event: Asked, emit: Emit) -> Answered:
    emit(Counted(name=event.name), after=60)
    return Answered(name=event.name)


@calls.effect(Asked)
async def call(event: Asked) -> Answered:
    return Answered(name=event.name)


@silent.on(Asked)
def be_silent(event: Asked) -> None:
    assert event.name != Answered.__name__, "a class in the code of a handler that cannot emit"


@counts.on(Asked)
def add(named: Named, event: Asked) -> None:
    named.name = event.name


@counts.closed
def close(named: Named, window: Window) -> Counted:
    return Counted(name=window.key)


@trade.start(Asked)
def begin(event: Asked) -> Named:
    return Named(name=event.name)


@trade.step(done=Answered, within=60)
def ask(named: Named) -> Opened:
    return Opened(name=named.name)


def test_every_way_of_sending_is_named() -> None:
    events.registry.complete()
    sent = {sender.name: [event_type.type for event_type in sender.types] for sender in senders(events.registry)}
    assert sent == {
        "plain": ["answered", "counted", "night"],
        "calls": ["answered"],
        "counts": ["counted", "senders.counts.window_ended"],
        "trade": ["opened", "senders.trade.timed_out"],
        "aggregate.account": ["opened"],
    }


def test_asyncapi_has_an_operation_for_each_topic_of_a_sender() -> None:
    events.registry.complete()
    operations = build_asyncapi(events.registry, "/events")["operations"]
    sent = {name: each for name, each in operations.items() if each["action"] == "send"}
    assert set(sent) == {
        *("plain.money.send", "plain.sums.send", "calls.money.send", "counts.money.send", "counts.sums.send"),
        *("trade.money.send", "aggregate.account.money.send"),
    }
    assert sent["plain.sums.send"]["channel"] == {"$ref": "#/channels/topic.sums"}
    assert sent["plain.sums.send"]["messages"] == [{"$ref": "#/channels/topic.sums/messages/counted"}]
