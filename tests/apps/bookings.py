"""A route that books in tables of its own and emits, one after another, and a handler that notes what arrives."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Event, Headrace, Outbox, State
from tests.apps import kind
from tests.apps.numbers import next_number

NAME = kind.name("bookings")
TABLES = """
create table if not exists account (name text primary key, number integer not null);
create table if not exists booking (request text primary key, account text not null, number integer not null);
"""

events = Headrace(NAME)
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)


class Booked(Event, type="booked", topic=NAME, key="account"):
    """The account has one more booking; its bookings are numbered from 1."""

    account: str
    number: int


class Book(BaseModel):
    """The bookings that arrived, in their order."""

    numbers: list[int] = []


@events.subscription("books").on(Booked)
@kind.of_asked_kind
def note(event: Booked, book: State[Book]) -> None:
    """Note the number."""
    book.numbers.append(event.number)


@app.post("/bookings/{account}/{request}", status_code=201)
async def book_it(account: str, request: str, tx: Outbox) -> None:
    """Give the account its next number. A request that comes again, because it got no answer, changes nothing."""
    if (number := await next_number(tx, account, request)) is None:
        return
    tx.emit(Booked(account=account, number=number))
