"""One bad event never stops a partition: it is parked or a dead letter, and the events of other keys are applied."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from threading import Lock
from types import MappingProxyType
from typing import Annotated, Any

import asyncpg
import pytest
from fastapi import Depends
from pydantic import BaseModel, PrivateAttr, field_validator

from headrace import Emit, Event, Headrace, State, Transaction
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.runtime import Runtime
from headrace.settings import DatabaseSettings, Settings
from tests.support.platform import (
    client,
    fetch,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    spread,
    states,
    until_settled,
    value,
)
from tests.support.waiting import until

GOOD = [f"page-{number}" for number in range(20)]


class Page(BaseModel):
    """The numbers applied to a page, and a field that takes anything."""

    numbers: list[int] = []
    extra: Any = None


class SilentError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def _raise(error: BaseException) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        raise error

    return act


def _raise_from_itself(page: Page) -> None:
    try:
        raise ValueError("round and round")
    except ValueError as error:
        raise error from error


def _keep(extra: object) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        page.extra = extra

    return act


BAD: dict[str, tuple[Callable[[Page], None], str]] = {
    "a state that is no JSON": (_keep(object()), "Unable to serialize unknown type"),
    "a state with half a character": (_keep("\ud800"), "surrogates not allowed"),
    "an error without a text": (_raise(SilentError()), "SilentError: (its text cannot be shown)"),
    "an error that is its own cause": (_raise_from_itself, "round and round"),
    "a text with half a character": (_raise(ValueError("\ud800\x00")), "ValueError"),
    "CancelledError": (_raise(asyncio.CancelledError()), "CancelledError"),
    "SystemExit": (_raise(SystemExit(1)), "SystemExit"),
    "KeyboardInterrupt": (_raise(KeyboardInterrupt()), "KeyboardInterrupt"),
    "StopIteration": (_raise(StopIteration()), "StopIteration"),
    "an error that is no Exception": (_raise(BaseExceptionGroup("", [SystemExit()])), "BaseExceptionGroup"),
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_event_whose_handler_does_the_unheard_of_is_parked_alone(
    database_url: str, topic_name: str, is_async: bool
) -> None:
    """All of them in one batch: each is found, and nothing else is blamed."""
    bad = dict(BAD)
    if is_async:
        del bad["KeyboardInterrupt"]  # it ends the loop where a coroutine raises it: it is the operator's
    settings = settings_for(database_url, partitions=1, retry_attempts=2)
    platform = _journal(settings, topic_name, {kind: act for kind, (act, _) in bad.items()}, is_async=is_async)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, [*GOOD[:10], *bad, *GOOD[10:]], 2))
        await until_settled(runtime, "notes")
        assert await _numbers(runtime) == {page: [1, 2] for page in GOOD}
        letters = await fetch(runtime, "select key, reason, error from headrace.dead_letter")
        assert Counter(row["key"].decode() for row in letters) == dict.fromkeys(bad, 2)
        for row in letters:
            assert row["reason"] == "gave_up"
            assert bad[row["key"].decode()][1] in row["error"]
        assert runtime.health.liveness() == (True, [])


async def test_state_that_a_later_event_spoils_is_kept_as_it_was_when_its_own_handler_was_done(
    database_url: str, topic_name: str
) -> None:
    """The two states share a list, so that both cannot be written at the end, and no event alone is to blame then."""
    shared: list[object] = []
    platform = Headrace("notebook", settings_for(database_url, partitions=1, retry_attempts=1_000))

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, page: State[Page]) -> None:
        page.numbers.append(event.number)
        page.extra = shared
        shared.clear() if event.page == "a" else shared.append(object())

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad"], 1))
        await until(lambda: _has(runtime, {"a": [1]}), "the other key is applied")
        assert await _parked(runtime) == ["handler_error"]


async def test_state_that_cannot_be_copied_blames_no_event_for_another_one(database_url: str, topic_name: str) -> None:
    settings = settings_for(database_url, partitions=1, retry_attempts=2)
    platform = _journal(settings, topic_name, {"bad": _raise(ValueError())}, Locked)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, [*GOOD, "bad"], 2))
        await until_settled(runtime, "notes")
        assert await _numbers(runtime) == {page: [1, 2] for page in GOOD}
        assert await value(runtime, "select count(*) from headrace.dead_letter where key = 'bad'") == 2
        assert sample(runtime, "events_parked_total") == 2


class Locked(BaseModel):
    """A state with a part that is not saved and that nothing can copy."""

    numbers: list[int] = []
    extra: Any = None
    _lock: Any = PrivateAttr(default_factory=Lock)


async def test_state_that_does_not_fit_its_class_holds_back_its_key_until_the_class_is_mended(
    database_url: str, topic_name: str
) -> None:
    log, settings = MemoryLog(), settings_for(database_url, partitions=1, retry_attempts=1_000)
    await _execute(
        database_url,
        "insert into headrace.state (subscription, state, key, partition, version, data) "
        """values ('notes', 'page', 'bad', 0, 1, '{"numbers": "7 8"}')""",
    )
    flowing = ["a", "b", "c"]
    async with running(_journal(settings, topic_name), log) as runtime:
        await publish(runtime, *spread(topic_name, ["bad", *flowing], 2))
        await until(lambda: _has(runtime, {page: [1, 2] for page in flowing}), "the other keys are applied")
        assert await _parked(runtime) == ["handler_error", "behind_key"]
        error = await value(runtime, "select error from headrace.lane")
        assert "the state of this key does not fit its class" in error and "numbers" in error
    async with running(_journal(settings, topic_name), log) as runtime:
        await publish(runtime, *spread(topic_name, ["bad", *flowing], 1))
        await until(lambda: _has(runtime, {page: [1, 2, 1] for page in flowing}), "they flow after a restart as well")
        assert len(await _parked(runtime)) == 3
    async with running(_journal(settings, topic_name, state=_mended()), log) as runtime:
        await until_settled(runtime, "notes")
        assert await _numbers(runtime) == {"bad": [7, 8, 1, 2, 1]} | {page: [1, 2, 1] for page in flowing}
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0


def _mended() -> type[Any]:
    class Page(BaseModel):
        numbers: list[int] = []
        extra: Any = None

        @field_validator("numbers", mode="before")
        @classmethod
        def split(cls, given: Any) -> Any:
            return given.split() if isinstance(given, str) else given

    return Page


@pytest.mark.parametrize("is_restarted", [True, False], ids=["restarted", "undone"])
async def test_state_that_is_written_as_what_its_class_does_not_read_holds_back_its_key_alone(
    database_url: str, topic_name: str, is_restarted: bool
) -> None:
    """Pydantic writes NaN as null, and reads no null into a float."""
    log, platform = MemoryLog(), _scores(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "bad", 0))
        await until_settled(runtime, "notes")
        if not is_restarted:  # a batch that is undone reads its states anew
            await publish(runtime, noted(topic_name, "raises", 1), *spread(topic_name, ["a", "bad", "b"], 2))
            await until(lambda: _has(runtime, {"a": [1, 2], "b": [1, 2]}, "score"), "the other keys are applied")
    if is_restarted:
        async with running(platform, log) as runtime:
            await publish(runtime, *spread(topic_name, ["a", "bad", "b"], 2))
            await until(lambda: _has(runtime, {"a": [1, 2], "b": [1, 2]}, "score"), "the other keys are applied")
    async with running(_scores(platform.settings, topic_name, score=_optional_score()), log) as runtime:
        await until(lambda: _has(runtime, {"bad": [0, 1, 2], "a": [1, 2], "b": [1, 2]}, "score"), "the class is mended")


class Score(BaseModel):
    """What a page scored."""

    numbers: list[int] = []
    score: float = 0.0


def _optional_score() -> type[Any]:
    class Score(BaseModel):
        numbers: list[int] = []
        score: float | None = None

    return Score


@pytest.mark.parametrize("characters", [513, 600, 6_000])
async def test_key_that_no_index_can_hold_is_a_dead_letter_and_is_refused_over_http(
    database_url: str, topic_name: str, characters: int
) -> None:
    platform, page = notebook(settings_for(database_url, partitions=1), topic_name), "x" * characters
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        answer = await http.post("/events/noted", json={"page": page, "number": 1})
        assert answer.status_code == 422, answer.text
        assert f"the key has {characters:,} characters" in answer.text
        await publish(
            runtime, noted(topic_name, page, 1), noted(topic_name, "\N{OX}" * 512, 1), noted(topic_name, "a", 1)
        )
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"\N{OX}" * 512: [1], "a": [1]}
        letters = await fetch(runtime, "select reason, error, record_key from headrace.dead_letter")
        assert [(row["reason"], row["record_key"]) for row in letters] == [("schema", page.encode())]


async def test_parked_key_may_be_as_long_as_a_key_may_be(database_url: str, topic_name: str) -> None:
    def fail(event: Any) -> None:
        raise ValueError("always")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "\N{OX}" * 512, 1))
        await until_settled(runtime, "notes")
        letter = await value(runtime, "select reason from headrace.dead_letter")
        assert letter == "gave_up"


async def test_event_whose_parking_is_refused_is_a_dead_letter(database_url: str, topic_name: str) -> None:
    await _execute(database_url, "alter table headrace.parked add check (event_id <> 'refused')")

    def fail(event: Any) -> None:
        if event.page == "bad":
            raise ValueError("always")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=3), topic_name, fail)
    async with running(platform, MemoryLog()) as runtime:
        records = spread(topic_name, GOOD, 2)
        records.insert(11, noted(topic_name, "bad", 1, id="refused"))
        await publish(runtime, *records)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: [1, 2] for page in GOOD}
        letters = await fetch(runtime, "select event_id, reason, error from headrace.dead_letter")
        assert [(row["event_id"], row["reason"]) for row in letters] == [("refused", "gave_up")]
        assert "parked" in letters[0]["error"]


async def test_statement_that_the_handler_gives_no_time_parks_its_event_alone(
    database_url: str, topic_name: str
) -> None:
    """To the driver it looks as if Postgres did not answer, which alone would be nobody's fault and tried for ever."""

    async def act(transaction: Transaction) -> None:
        await transaction.execute("select pg_sleep(10)", timeout=0.05)

    platform = _in_transaction(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, act)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad", "b"], 2))
        await until(lambda: _has(runtime, {"a": [1, 2], "b": [1, 2]}), "the other keys are applied")
        assert sorted(await _parked(runtime)) == ["behind_key", "data_refused"]
        await publish(runtime, *spread(topic_name, ["a", "bad", "b"], 1))
        await until(lambda: _has(runtime, {"a": [1, 2, 1], "b": [1, 2, 1]}), "they flow on while it is tried again")


async def test_handlers_may_think_longer_in_all_than_a_silent_session_is_given(
    database_url: str, topic_name: str
) -> None:
    settings = settings_for(database_url, partitions=1)
    options = DatabaseSettings(idle_in_transaction_seconds=0.3)
    platform = Headrace("notebook", settings.model_copy(update={"database_options": options}))

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    class Thought(Event, type="thought", topic=topic_name, key="page"):
        page: str

    notes = platform.subscription("notes")

    @notes.on(Thought)
    async def ask(event: Thought, transaction: Transaction) -> None:
        await transaction.execute("select 1")

    @notes.on(Noted)
    def note(event: Noted, page: State[Page]) -> None:
        time.sleep(0.1)
        page.numbers.append(event.number)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number}", number) for number in range(8)))
        await until_settled(runtime, "notes")
        assert await _numbers(runtime) == {f"page-{number}": [number] for number in range(8)}
        assert sample(runtime, "batch_reruns_total") == 0, "Postgres ended a session in which a handler was thinking"


@pytest.mark.parametrize("kind", ["sync", "async", "async with a sync dependency", "transaction"])
async def test_dependency_that_swallows_the_error_of_a_handler_keeps_nothing_of_it(
    database_url: str, topic_name: str, kind: str
) -> None:
    platform = _swallowing(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, kind)
    await _execute(database_url, "create table public.booking (page text)")
    log = MemoryLog()
    async with running(platform, log) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad", "b"], 2))
        await until_settled(runtime, "notes", "echoes")
        assert await _numbers(runtime) == {"a": [1, 2], "b": [1, 2]}
        letters = await fetch(runtime, "select key, error from headrace.dead_letter")
        assert [row["key"] for row in letters] == [b"bad"] * 2
        assert all("a dependency swallowed the handler's error" in row["error"] for row in letters)
        assert await _numbers(runtime, "echoes") == {"all": [1, 1, 2, 2]}, "an event was emitted by a failed handler"
        booked = [row["page"] for row in await fetch(runtime, "select page from booking")]
        assert sorted(booked) == (["a", "a", "b", "b"] if kind == "transaction" else [])


async def test_slow_handlers_make_short_batches(database_url: str, topic_name: str) -> None:
    """250 events of 20 ms are five seconds of work; a batch holds its locks for about two."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name, before=lambda event: time.sleep(0.02))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number % 7}", number) for number in range(250)))
        await until_settled(runtime, "notes")
        sizes = await _batches(runtime)
        assert sum(sizes) == 250
        assert max(sizes) <= 110, sizes
        assert len(sizes) <= 30, f"{sizes}: so short that commits are all it does"
        found = await pages(runtime)
        assert found == {f"page-{page}": list(range(page, 250, 7)) for page in range(7)}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_batch_that_is_cut_short_keeps_every_outcome_and_emit(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Cut after every few events, in batches and in lanes, with duplicates, unreadable records and failures between."""
    monkeypatch.setattr("headrace.engine.batch.TARGET_SECONDS", 0.02)
    broken = True

    def fail(event: Any) -> None:
        time.sleep(0.003)
        if broken and event.page == "bad":
            raise ValueError("not yet")

    platform = _echoing(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, fail, kind)
    records = [noted(topic_name, page, number, id=f"{page}/{number}") for number in range(40) for page in ("a", "bad")]
    for place in range(0, 80, 5):  # sixteen places: a duplicate, and behind it what is no event
        records[place * 7 // 5 : place * 7 // 5 + 1] = [
            records[place * 7 // 5],
            records[place * 7 // 5],
            NewRecord(topic_name, b"a", b"not an event", []),
        ]
    log = MemoryLog()
    async with running(platform, log) as runtime:
        await publish(runtime, *records)
        await until(lambda: _has(runtime, {"a": list(range(40))}), "the other key is applied")
        broken = False
        await until_settled(runtime, "notes", "echoes")
        assert await _numbers(runtime) == {"a": list(range(40)), "bad": list(range(40))}
        assert sorted((await _numbers(runtime, "echoes"))["all"]) == sorted([*range(40), *range(40)])
        row = (await fetch(runtime, LEDGER))[0]
        assert tuple(map(int, row)) == (len(records), 40, 16, 40, 16)
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 16
        assert await value(runtime, "select count(*) from headrace.ledger where kind = 1 and applied > 0") > 1
    async with running(platform, log) as runtime:
        await publish(runtime, *records[:10])
        await until_settled(runtime, "notes", "echoes")
        assert await _numbers(runtime) == {"a": list(range(40)), "bad": list(range(40))}


LEDGER = (
    "select sum(next_offset - first_offset), sum(applied), sum(skipped), sum(parked), sum(dead) "
    "from headrace.ledger where kind = 0 and subscription = 'notebook.notes'"
)


async def test_coroutine_that_never_ends_is_parked_after_its_time_and_costs_others_no_more(
    database_url: str, topic_name: str
) -> None:
    settings = settings_for(database_url, partitions=1, retry_attempts=1, batch_seconds=0.2)
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    async def note(event: Noted, page: State[Page]) -> None:
        page.numbers.append(event.number)
        if event.page.startswith("bad"):
            await asyncio.Event().wait()

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad-1", "b", "bad-2", "c"], 1))
        await until_settled(runtime, "notes")
        assert await _numbers(runtime) == {"a": [1], "b": [1], "c": [1]}
        letters = await fetch(runtime, "select key, error from headrace.dead_letter")
        assert {row["key"] for row in letters} == {b"bad-1", b"bad-2"}
        assert all("TimeoutError" in row["error"] for row in letters)


def _journal(
    settings: Settings,
    topic: str,
    acts: Mapping[str, Callable[[Any], None]] = MappingProxyType({}),
    state: type[Any] = Page,
    *,
    is_async: bool = False,
) -> Headrace:
    """A service that notes the numbers of a page, and then does to its state what `acts` say by the page's name."""
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


def _scores(settings: Settings, topic: str, score: type[Any] = Score) -> Headrace:
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, kept: State[score]) -> None:  # type: ignore[valid-type]
        if event.page == "raises":
            raise ValueError("always")
        kept.numbers.append(event.number)  # type: ignore[attr-defined]
        kept.score = math.nan if event.page == "bad" and event.number == 0 else 1.0  # type: ignore[attr-defined]

    return platform


def _in_transaction(settings: Settings, topic: str, act: Callable[[Transaction], Any]) -> Headrace:
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


def _swallowing(settings: Settings, topic: str, kind: str) -> Headrace:
    """A service whose dependency catches what its handler raises once it has changed, emitted and written."""
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


def _echoing(settings: Settings, topic: str, before: Callable[[Any], None], kind: str) -> Headrace:
    """A service that notes numbers and emits each one."""
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


async def _numbers(runtime: Runtime, subscription: str = "notes", state: str | None = None) -> dict[str, list[int]]:
    names = [state] if state else ["page", "locked"]
    found: dict[str, list[int]] = {}
    for name in names:
        found |= {key: kept["numbers"] for key, kept in (await states(runtime, subscription, name)).items()}
    return found


async def _has(runtime: Runtime, expected: dict[str, list[int]], state: str = "page") -> bool:
    found = await _numbers(runtime, state=state)
    return {page: found.get(page) for page in expected} == expected


async def _parked(runtime: Runtime) -> list[str]:
    return [row["reason"] for row in await fetch(runtime, "select reason from headrace.parked order by number")]


async def _batches(runtime: Runtime) -> list[int]:
    rows = await fetch(
        runtime, "select next_offset - first_offset as size from headrace.ledger where kind = 0 order by sequence"
    )
    return [row["size"] for row in rows]


async def _execute(database_url: str, sql: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(sql)
    await connection.close()
