"""Sample services, each declared once, and what they hold. `notebook` in platform.py is the simplest of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Annotated, Any

import asyncpg
from fastapi import Depends
from pydantic import BaseModel

from headrace import Emit, Event, Headrace, State, Transaction
from headrace.log.ports import NewRecord
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.platform import (
    Notes,
    record,
    states,
)

GOOD_PAGES = [f"page-{number}" for number in range(20)]
"""Pages whose events no sample service fails."""


KINDS = ["sync", "async", "transaction"]
"""The ways in which a handler can be called."""


class Page(BaseModel):
    """The numbers applied to a page, and a field that takes anything."""

    numbers: list[int] = []
    extra: Any = None


def entered(
    settings: Settings,
    topic: str,
    kind: str,
    enter: Callable[[Any], None],
    enter_async: Callable[[Any], Awaitable[None]],
) -> Headrace:
    """Return a notebook whose handler is of one of KINDS, and first enters what the test holds it with."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    def note(event: Noted, kept: State[Notes]) -> None:
        enter(event)
        kept.numbers.append(event.number)

    async def note_async(event: Noted, kept: State[Notes]) -> None:
        await enter_async(event)
        kept.numbers.append(event.number)

    async def note_in_a_transaction(event: Noted, kept: State[Notes], transaction: Transaction) -> None:
        await note_async(event, kept)

    handlers: dict[str, Any] = {"sync": note, "async": note_async, "transaction": note_in_a_transaction}
    platform.subscription("notes").on(Noted)(handlers[kind])
    return platform


def journal(
    settings: Settings,
    topic: str,
    acts: Mapping[str, Callable[[Any], None]] = MappingProxyType({}),
    state: type[Any] = Page,
    *,
    is_async: bool = False,
) -> Headrace:
    """Return a service that notes the numbers of a page; `acts`, by the name of a page, then changes its state."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    def note(event: Noted, page: State[state]) -> None:  # type: ignore[valid-type]
        page.numbers.append(event.number)  # type: ignore[attr-defined]
        if event.page in acts:
            acts[event.page](page)

    async def note_async(event: Noted, page: State[state]) -> None:  # type: ignore[valid-type]
        note(event, page)

    platform.subscription("notes").on(Noted)(note_async if is_async else note)
    return platform


class Score(BaseModel):
    """What a page scored."""

    numbers: list[int] = []
    score: float = 0.0


def noting_in_a_transaction(settings: Settings, topic: str, act: Callable[[Transaction], Any]) -> Headrace:
    """Return a service that notes numbers and then lets `act` use the transaction for the page `bad`."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    async def note(event: Noted, page: State[Page], transaction: Transaction) -> None:
        page.numbers.append(event.number)
        if event.page == "bad":
            await act(transaction)

    return platform


def swallowing(settings: Settings, topic: str, kind: str) -> Headrace:
    """Return a service whose dependency catches what its handler raises once it has changed, emitted and written."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{topic}-echoes"):
        number: int

    def swallow() -> Iterator[None]:
        with suppress(ValueError):
            yield

    async def swallow_async() -> AsyncIterator[None]:
        with suppress(ValueError):
            yield

    def work(event: Noted, page: Page, emit: Emit) -> None:
        page.numbers.append(event.number)
        emit(Echoed(number=event.number), key="all")
        if event.page == "bad":
            raise ValueError("half done")

    def note(event: Noted, page: State[Page], emit: Emit, _: Annotated[None, Depends(swallow)]) -> None:
        work(event, page, emit)

    async def note_async(
        event: Noted, page: State[Page], emit: Emit, _: Annotated[None, Depends(swallow_async)]
    ) -> None:
        work(event, page, emit)

    async def note_mixed(event: Noted, page: State[Page], emit: Emit, _: Annotated[None, Depends(swallow)]) -> None:
        work(event, page, emit)

    async def book(
        event: Noted, page: State[Page], emit: Emit, tx: Transaction, _: Annotated[None, Depends(swallow_async)]
    ) -> None:
        await tx.execute("insert into booking values ($1)", event.page)
        work(event, page, emit)

    handlers: dict[str, Callable[..., Any]] = {
        "sync": note,
        "async": note_async,
        "async with a sync dependency": note_mixed,
        "transaction": book,
    }
    platform.subscription("notes").on(Noted)(handlers[kind])

    @platform.subscription("echoes").on(Echoed)
    def echo(event: Echoed, page: State[Page]) -> None:
        page.numbers.append(event.number)

    return platform


def echoing(settings: Settings, topic: str, before: Callable[[Any], None], kind: str) -> Headrace:
    """Return a service that notes numbers and emits each one; `before` may raise first."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{topic}-echoes", key="to"):
        to: str
        number: int

    def note(event: Noted, page: State[Page]) -> Echoed:
        before(event)
        page.numbers.append(event.number)
        return Echoed(to="all", number=event.number)

    async def note_async(event: Noted, page: State[Page]) -> Echoed:
        return note(event, page)

    platform.subscription("notes").on(Noted)(note if kind == "sync" else note_async)

    @platform.subscription("echoes").on(Echoed)
    def echo(event: Echoed, page: State[Page]) -> None:
        page.numbers.append(event.number)

    return platform


def bookings(settings: Settings, topic: str, *, swallow: bool = False) -> Headrace:
    """Return a service that books each number with SQL; with `swallow` its handler hides a number that is taken."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    @platform.subscription("bookings").on(Noted)
    async def book(event: Noted, kept: State[Notes], transaction: Transaction) -> None:
        kept.numbers.append(event.number)
        try:
            await transaction.execute("insert into booking values ($1, $2)", event.page, event.number)
        except asyncpg.UniqueViolationError:
            if not swallow:
                raise

    return platform


class Quotes(BaseModel):
    """What was said on a page."""

    texts: list[str] = []


def quotes(settings: Settings, topic: str, before: Any = lambda event: None) -> Headrace:
    """Return a service that keeps the texts of a page; `before` may raise first."""
    platform = Headrace("notebook", settings)

    class Quoted(Event, type="quoted", topic=topic, key="page"):
        page: str
        text: str

    @platform.subscription("quotes").on(Quoted)
    def quote(event: Quoted, kept: State[Quotes]) -> None:
        before(event)
        kept.texts.append(event.text)

    return platform


def quoted(topic: str, page: str, text: str, id: str | None = None) -> NewRecord:
    """Return the record of one event for `quotes`."""
    return record(topic, "quoted", {"page": page, "text": text}, key=page, id=id)


async def noted_numbers(
    runtime: Runtime, subscription: str = "notes", state: str | None = None
) -> dict[str, list[int]]:
    """Return the numbers that a subscription keeps by page, in the state that is named or in those of a journal."""
    names = [state] if state else ["page", "locked"]
    found: dict[str, list[int]] = {}
    for name in names:
        found |= {key: kept["numbers"] for key, kept in (await states(runtime, subscription, name)).items()}
    return found


async def has_numbers(runtime: Runtime, expected: dict[str, list[int]], state: str = "page") -> bool:
    """True when the notes hold just these numbers for these pages; other pages do not count."""
    found = await noted_numbers(runtime, state=state)
    return {page: found.get(page) for page in expected} == expected
