"""What the subscription `echoes` does with what `notes` emits: one of these in each run, so that a run costs no more.

| sink | keeps |
| --- | --- |
| `state` | a list of numbers for each page |
| `lists` | the same, in a batch handler that raises now and then |
| `windows` | a list for each minute of a page, which leaves as `Summed`; what is late leaves as `Missed` |
| `expiring` | a list that expires |
| `effects` | nothing: each number is told to the outside, in a step and behind it, and leaves as `Told` |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel

from headrace import Event, Headrace, State, States, Step, Window, keep

if TYPE_CHECKING:
    from headrace.handlers.subscription import Subscription

TTL_SECONDS = 30.0
WINDOW, LATENESS = timedelta(seconds=60), timedelta(seconds=5)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Echoed(Event, type="echoed", topic="echoes", key="page"):
    """What `notes` emits for each event that it has applied; `at` is the second of the run that it is about."""

    page: str
    number: int
    at: float = 0.0


class Summed(Event, type="summed", topic="echoes", key="page"):
    """What a window came to."""

    page: str
    end: datetime
    numbers: list[int]


class Missed(Event, type="missed", topic="echoes", key="page"):
    """A number that was too late for its window."""

    page: str
    number: int


class Told(Event, type="told", topic="echoes", key="page"):
    """A number that the outside has been told."""

    page: str
    number: int


class Echoes(BaseModel):
    """What was echoed of a page, in order."""

    numbers: list[int] = []


class Sum(BaseModel):
    """What was echoed of a page in one window, in order."""

    numbers: list[int] = []


@keep(ttl=TTL_SECONDS)
class Recent(BaseModel):
    """What was echoed of a page since it expired last, in order."""

    numbers: list[int] = []


class Call(NamedTuple):
    """A call to the outside."""

    what: str
    page: str
    number: int
    key: str


class Outside:
    """What effects call. `heard` is told of each call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.tries: Counter[tuple[str, str, int]] = Counter()
        self.heard: Callable[[Call], None] = lambda call: None

    async def call(self, what: str, page: str, number: int, key: str) -> str:
        """Take a call; some numbers are refused at first."""
        call = Call(what, page, number, key)
        self.calls.append(call)
        self.heard(call)
        self.hiccup(what, page, number, every=4 if what == "step" else 3)
        return key

    def hiccup(self, what: str, page: str, number: int, *, every: int) -> None:
        """Raise for some numbers, the first two times."""
        self.tries[what, page, number] += 1
        if number % every == 0 and self.tries[what, page, number] <= 2:
            raise ConnectionError(f"not yet: {number}")


def declare(platform: Headrace, sink: str, outside: Callable[[], Outside]) -> None:
    """Declare the subscription `echoes`."""
    if sink == "windows":
        _windows(platform)
        return
    echoes = platform.subscription("echoes")
    platform.declare(Told)
    if sink == "lists":
        _lists(echoes, outside)
    elif sink == "effects":
        _effects(echoes, outside)
    elif sink == "expiring":

        @echoes.on(Echoed)
        async def hear(event: Echoed, kept: State[Recent]) -> None:
            kept.numbers.append(event.number)

    else:

        @echoes.on(Echoed)
        async def echo(event: Echoed, kept: State[Echoes]) -> None:
            kept.numbers.append(event.number)


def _lists(echoes: Subscription, outside: Callable[[], Outside]) -> None:
    @echoes.on(Echoed)
    async def echo_many(events: list[Echoed], kept: States[Echoes]) -> None:
        for event in events:
            kept.of(event).numbers.append(event.number)
            outside().hiccup("list", event.page, event.number, every=7)


def _effects(echoes: Subscription, outside: Callable[[], Outside]) -> None:
    @echoes.effect(Echoed, attempts=10_000)
    async def tell(event: Echoed, step: Step) -> Told:
        answer = await step("call", outside().call, "step", event.page, event.number, step.key)
        await outside().call("tell", event.page, event.number, answer)
        return Told(page=event.page, number=event.number)


def _windows(platform: Headrace) -> None:
    platform.declare(Summed, Missed)
    echoes = platform.windows("echoes", Sum, size=WINDOW, lateness=LATENESS, time=_time)

    @echoes.on(Echoed)
    def add(sum: Sum, event: Echoed) -> None:
        sum.numbers.append(event.number)

    @echoes.closed
    def close(sum: Sum, window: Window) -> Summed:
        return Summed(page=window.key, end=window.end, numbers=sum.numbers)

    @echoes.late
    def miss(event: Echoed, window: Window) -> Missed:
        return Missed(page=event.page, number=event.number)


def _time(event: Echoed) -> datetime:
    return EPOCH + timedelta(seconds=event.at)
