"""The kit runs handlers as the engine does: what passes here passes in production."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel

from headrace import DeadLetter, Emit, Envelope, Event, Headrace, Record, Retry, Skip, State, Transaction
from headrace.errors import ConfigurationError, HeadraceError, SchemaError
from headrace.log.ports import NewRecord
from headrace.testing import Handlers, Timer


class Noted(Event, type="noted", topic="pages", key="page"):
    page: str
    number: int = 0


class Told(Event, type="told", topic="telling", key="page"):
    page: str
    total: int


class Echo(Event, type="echo", topic="pages", key="page"):
    page: str


class Notes(BaseModel):
    numbers: list[int] = []


class Count(BaseModel):
    told: int = 0


class OtherError(Exception): ...


def platform() -> Headrace:
    """Return a service of two subscriptions: one notes and tells, the other one counts what is told."""
    events = Headrace("notebook")
    notes = events.subscription("notes")

    @notes.on(Noted)
    def note(event: Noted, notes: State[Notes], emit: Emit) -> Told | None:
        notes.numbers.append(event.number)
        match event.number:
            case -1:
                raise KeyError("minus one")
            case -2:
                raise Skip("not needed")
            case -3:
                raise DeadLetter("never")
            case -4:
                raise Retry(after=90)
            case 10:
                emit(Echo(page=event.page), after=timedelta(hours=1), name="later")
                emit(Echo(page=event.page), at=datetime(2100, 1, 1, tzinfo=UTC))
            case 11:
                emit.cancel(Echo, event.page, "later")
        return Told(page=event.page, total=sum(notes.numbers))

    @notes.on(Echo)
    def echo(event: Echo, notes: State[Notes]) -> None:
        notes.numbers.append(1_000)

    @events.subscription("counting").on(Told)
    def count(event: Told, count: State[Count]) -> None:
        count.told += 1

    return events


@pytest.fixture
def handlers() -> Handlers:
    return Handlers(platform())


def test_event_changes_state_and_emits(handlers: Handlers) -> None:
    handlers.given(Noted(page="a", number=1), Noted(page="b", number=5))
    then = handlers.when(Noted(page="a", number=2))
    assert then.state(Notes) == Notes(numbers=[1, 2])
    assert then.emits == [Told(page="a", total=3)]
    assert (then.fate, then.timers, then.reason) == ("applied", [], None)
    assert handlers.states(Notes) == {"a": Notes(numbers=[1, 2]), "b": Notes(numbers=[5])}
    assert handlers.states(Count) == {}, "what is emitted is not handled further"


def test_emits_have_the_ids_of_production(handlers: Handlers) -> None:
    (first,) = handlers.when(Noted(page="a"), id="1").sent
    assert (first.key, first.topic, first.envelope.causationid) == ("a", "telling", "1")
    (again,) = Handlers(platform()).when(Noted(page="a"), id="1").sent
    assert again.envelope.id == first.envelope.id


def test_second_copy_of_an_event_is_skipped(handlers: Handlers) -> None:
    handlers.when(Noted(page="a", number=1), id="1")
    then = handlers.when(Noted(page="a", number=1), id="1")
    assert (then.fate, then.reason, then.emits) == ("skipped", "duplicate_id", [])
    assert handlers.state(Notes, "a").numbers == [1]


def test_run_follows_what_is_emitted(handlers: Handlers) -> None:
    then = handlers.run(Noted(page="a"), Noted(page="a"))
    assert [step.subscription for step in then.steps] == ["notes", "counting", "notes", "counting"]
    assert handlers.state(Count, "a").told == 2


def test_error_of_a_handler_is_raised_as_it_is(handlers: Handlers) -> None:
    with pytest.raises(KeyError, match="minus one") as caught:
        handlers.when(Noted(page="a", number=-1))
    assert caught.traceback[-1].name == "note", "with its traceback"
    between = [entry for entry in caught.traceback[1:-1] if not entry.ishidden(caught)]
    assert between == [], "and nothing of the platform in it"
    assert handlers.state(Notes, "a") == Notes(), "and nothing has changed"
    assert handlers.when(Noted(page="a", number=1)).fate == "applied"


@pytest.mark.parametrize(
    ("number", "fate", "reason", "seconds"),
    [
        (-2, "skipped", "skipped_by_handler", None),
        (-3, "dead_letter", "never", None),
        (-4, "retry", "it asked for a retry", 90),
    ],
)
def test_verdicts_are_what_becomes_of_an_event(
    number: int, fate: str, reason: str, seconds: float | None, handlers: Handlers
) -> None:
    then = handlers.when(Noted(page="a", number=number))
    assert (then.fate, then.reason, then.retry_seconds) == (fate, reason, seconds)
    assert (then.emits, then.state(Notes)) == ([], Notes())


def test_allowed_error_is_left_to_the_policy() -> None:
    events, fails = Headrace("notebook"), [True]

    @events.subscription("notes", attempts=2, first_seconds=10, permanent=OtherError).on(Noted)
    def note(event: Noted, notes: State[Notes]) -> None:
        if event.number < 0:
            raise OtherError
        if fails[0]:
            raise KeyError("now")
        notes.numbers.append(event.number)

    handlers = Handlers(events)
    then = handlers.when(Noted(page="a", number=1), allow=KeyError)
    assert (then.fate, then.retry_seconds) == ("retry", 10)
    assert handlers.when(Noted(page="a", number=2)).fate == "waits"
    with pytest.raises(KeyError):
        handlers.move(seconds=10)
    fails[0] = False
    assert [step.fate for step in handlers.move(seconds=10).steps] == ["applied", "applied"]
    assert handlers.state(Notes, "a").numbers == [1, 2], "in the order of the key"
    assert handlers.when(Noted(page="b", number=-1), allow=OtherError).fate == "dead_letter"
    fails[0] = True
    handlers.when(Noted(page="c", number=1), allow=KeyError)
    assert [step.fate for step in handlers.move(seconds=10, allow=KeyError).steps] == ["dead_letter"]


def test_timers_fire_when_the_clock_is_moved(handlers: Handlers) -> None:
    then = handlers.when(Noted(page="a", number=10))
    echo = Echo(page="a")
    assert then.timers == [
        Timer(echo, after=timedelta(hours=1), name="later"),
        Timer(echo, at=datetime(2100, 1, 1, tzinfo=UTC)),
    ]
    assert handlers.move(minutes=59).steps == []
    assert [step.event for step in handlers.move(minutes=1).steps] == [echo]
    assert handlers.state(Notes, "a").numbers == [10, 1_000]
    assert [timer.at for timer in handlers.timers] == [datetime(2100, 1, 1, tzinfo=UTC)]


def test_cancelled_timer_does_not_fire(handlers: Handlers) -> None:
    handlers.given(Noted(page="a", number=10))
    assert handlers.when(Noted(page="a", number=11)).cancelled == [("echo", "a", "later")]
    assert handlers.move(hours=2).steps == []


def test_schedule_fires_at_each_of_its_times() -> None:
    events = platform()
    events.registry.subscriptions["notes"].schedule(Echo(page="a"), "0 * * * *")
    handlers = Handlers(events)
    handlers.move(hours=3)
    assert handlers.state(Notes, "a").numbers == [1_000] * 3


def test_given_state_is_where_a_handler_begins(handlers: Handlers) -> None:
    handlers.given_state("a", Notes(numbers=[7]))
    assert handlers.when(Noted(page="a", number=1)).emits == [Told(page="a", total=8)]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_event_that_the_door_refuses_is_refused(handlers: Handlers) -> None:
    event = Noted(page="a")
    event.number = "one"  # type: ignore[assignment]
    with pytest.raises(SchemaError):
        handlers.when(event)


def test_record_that_is_no_event_is_a_dead_letter(handlers: Handlers) -> None:
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/x"), ("ce_type", b"noted")]
    then = handlers.when(NewRecord("pages", b"a", b"{}", headers))
    assert then.fate == "dead_letter"
    assert "noted: page: Field required" in (then.reason or "")


def test_foreign_record_goes_through_its_decoder() -> None:
    events = platform()

    @events.decoder("pages")
    def decode(record: Record) -> Noted:
        return Noted(page="a", number=int(record.value or b""))

    then = Handlers(events).when(NewRecord("pages", None, b"5", []))
    assert then.state(Notes).numbers == [5]


def test_dependency_overrides_are_followed() -> None:
    events, app = Headrace("notebook"), FastAPI()

    def rate() -> int:
        raise AssertionError("it asks somebody else")

    @events.subscription("notes").on(Noted)
    async def note(event: Noted, notes: State[Notes], envelope: Envelope, rate: Annotated[int, Depends(rate)]) -> None:
        notes.numbers.append(event.number * rate)

    app = FastAPI(lifespan=events.lifespan)
    app.dependency_overrides[rate] = lambda: 3
    with Handlers(app) as handlers:
        assert handlers.when(Noted(page="a", number=2)).state(Notes).numbers == [6]
        app.dependency_overrides[rate] = lambda: 4
        assert handlers.when(Noted(page="a", number=2)).state(Notes).numbers == [6, 8]


async def test_handlers_run_in_an_asynchronous_test_too(handlers: Handlers) -> None:
    assert handlers.when(Noted(page="a", number=1)).fate == "applied"


def test_handler_with_sql_asks_for_a_database() -> None:
    events = Headrace("notebook")

    @events.subscription("notes").on(Noted)
    async def note(event: Noted, tx: Transaction) -> None:
        await tx.execute("insert into note values ($1)", event.number)

    with pytest.raises(ConfigurationError, match="note takes a Transaction, and SQL needs a real database: use the"):
        Handlers(events).when(Noted(page="a"))


def test_handlers_that_answer_each_other_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.testing.handlers.MOST_EVENTS", 50)
    events = Headrace("notebook")
    events.subscription("a").on(Noted)(_answer)
    events.subscription("b").on(Told)(_ask)
    with pytest.raises(HeadraceError, match=r"no end is in sight: a\._answer, b\._ask go on"):
        Handlers(events).run(Noted(page="a"))


def _answer(event: Noted) -> Told:
    return Told(page=event.page, total=0)


def _ask(event: Told) -> Noted:
    return Noted(page=event.page)


def test_mistakes_are_told_in_a_sentence(handlers: Handlers) -> None:
    with pytest.raises(ConfigurationError, match="no handler of any subscription takes told"):
        Handlers(_only_notes()).when(Told(page="a", total=1))
    with pytest.raises(ConfigurationError, match=r"no handler of the service takes a State\[Told\]"):
        handlers.state(Told, "a")
    with pytest.raises(ConfigurationError, match="no saga 'orders'"):
        handlers.saga("orders", "1")
    with pytest.raises(ConfigurationError, match="no one fate"):
        _ = handlers.run(Noted(page="a"), Noted(page="a", number=-2)).fate


def _only_notes() -> Headrace:
    events = Headrace("notebook")
    events.declare(Told)

    @events.subscription("notes").on(Noted)
    def note(event: Noted) -> None: ...

    return events
