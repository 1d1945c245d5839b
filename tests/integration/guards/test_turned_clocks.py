"""Clocks that are turned by hours, forward and back: of the process, and of Postgres.

Nothing is owned or ordered by the wall's time. Retries wait by the time that passes, and a timer fires by the clock of
Postgres: late if it was turned back, and once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from headrace import Emit, Event, Headrace, State
from headrace.ledger.partitions import try_to_tend
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from headrace.settings import Settings
from headrace.timers import clock as timers
from tests.support.auditing import assert_promises_hold
from tests.support.faketime import TurnedClock, turned_clock
from tests.support.platform import Notes, publish, record, running, settings_for, states, until_settled, value
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.small_app import publish as publish_thing
from tests.support.small_app import write_small_app
from tests.support.waiting import until
from tests.support.web import http_client

QUICK = {
    "HEADRACE_ENGINE_RETRY_FIRST_SECONDS": "0.2",
    "HEADRACE_ENGINE_RETRY_MAX_SECONDS": "0.5",
    "HEADRACE_ENGINE_RETRY_ATTEMPTS": "1000",
    "HEADRACE_PARTITIONS": "1",
}
HOURS = 6


@pytest.fixture
def clock(tmp_path: Path) -> TurnedClock:
    return turned_clock(tmp_path)


async def test_key_that_waits_is_retried_whatever_the_clock_shows(
    clock: TurnedClock, database_url: str, tmp_path: Path
) -> None:
    """An event fails, the clock of its process is turned, and the event is applied once its handler is mended."""
    mended = tmp_path / "mended"
    settings = QUICK | clock.environment | {"HEADRACE_LOG": "embedded", "HEADRACE_DATABASE": database_url}
    service = Service(tmp_path, settings, app=write_small_app(tmp_path, "things"))
    try:
        await service.start(is_quick=False)
        for count, hours in enumerate((-HOURS, HOURS, 0), 1):
            await publish_thing(service, "picky")
            await until(lambda: _waits(service), "the event waits for a retry")
            clock.turn(hours=hours)
            await until(lambda hours=hours: _shows(service, hours), f"the process is {hours} h off")  # type: ignore[misc]
            await publish_thing(service, "plain")
            mended.touch()
            await until(lambda count=count: _is_seen(service, "picky", count), "the event is applied")  # type: ignore[misc]
            await until(lambda count=count: _is_seen(service, "plain", count), "others are, too")  # type: ignore[misc]
            mended.unlink()
        assert await service.leave() == 0
    except BaseException as error:
        error.add_note(service.output[-4_000:])
        raise
    finally:
        await service.stop()
    await assert_promises_hold(database_url)


async def _waits(service: Service) -> bool:
    async with http_client() as http:
        answer = await http.get(f"{service.url}/subscriptions/things/lanes")
    return bool(answer.json()["lanes"])


async def _shows(service: Service, hours: int) -> bool:
    """True when the process dates its answers so many hours off."""
    async with http_client() as http:
        answer = await http.get(f"{service.url}/health/live")
    off = parsedate_to_datetime(answer.headers["date"]) - datetime.now(UTC)
    return abs(off - timedelta(hours=hours)) < timedelta(minutes=10)


async def _is_seen(service: Service, name: str, count: int) -> bool:
    async with http_client() as http:
        answer = await http.get(f"{service.url}/state/things/seen/{name}")
    return answer.status_code == 200 and answer.json() == {"count": count}


async def test_timers_and_the_ledger_follow_the_clock_of_postgres(
    clock: TurnedClock, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "LOOK_SECONDS", 0.1)
    server = PostgresServer(is_durable=False)
    try:
        with monkeypatch.context() as patched:
            for name, setting in clock.environment.items():
                patched.setenv(name, setting)
            await server.start()
        async with server.database() as url:
            platform = _reminders(settings_for(url, partitions=1), topic_name)
            async with running(platform, MemoryLog()) as runtime:
                await _ask(runtime, topic_name, "soon", seconds=0.1)
                await _ask(runtime, topic_name, "within hours", seconds=HOURS * 1800)
                clock.turn(hours=HOURS)
                await until(lambda: _has_fired(runtime, "soon", "within hours"), "what is due by now has fired")
                await _ask(runtime, topic_name, "turned back", seconds=60)
                clock.turn(hours=-HOURS)
                await until(lambda: _shows_postgres(runtime, -HOURS), "the clock was turned back")
                await _ask(runtime, topic_name, "meanwhile", seconds=0.1)
                await until(lambda: _has_fired(runtime, "soon", "within hours", "meanwhile"), "it waits for its time")
                clock.turn(hours=24 * 200)
                await until(lambda: _has_fired(runtime, "soon", "within hours", "meanwhile", "turned back"), "late")
                rows = await value(runtime, "select count(*) from headrace.ledger")
                assert runtime.pool is not None
                await try_to_tend(runtime.pool.acquire, platform.settings.engine)
                assert await value(runtime, "select count(*) from headrace.ledger") == rows
                tomorrow = f"ledger_{datetime.now(UTC) + timedelta(days=201):%Y%m%d}"
                assert await value(runtime, "select to_regclass($1) is not null", f"headrace.{tomorrow}")
                await until_settled(runtime, "asking", "reminded")
            await assert_promises_hold(url)
    finally:
        await server.stop()


def _reminders(settings: Settings, topic: str) -> Headrace:
    """Return a service that notes each reminder that it is asked for, when its time has come."""
    platform = Headrace("reminders", settings)

    class Asked(Event, type="asked", topic=topic, key="key"):
        key: str
        seconds: float

    class Reminded(Event, type="reminded", topic=f"{topic}-echoes", key="key"):
        key: str

    @platform.subscription("asking").on(Asked)
    def ask(event: Asked, emit: Emit) -> None:
        emit(Reminded(key=event.key), after=timedelta(seconds=event.seconds))

    @platform.subscription("reminded").on(Reminded)
    def remind(event: Reminded, kept: State[Notes]) -> None:
        kept.numbers.append(len(kept.numbers) + 1)

    return platform


async def _ask(runtime: Runtime, topic: str, key: str, *, seconds: float) -> None:
    await publish(runtime, record(topic, "asked", {"key": key, "seconds": seconds}, key=key))
    await until_settled(runtime, "asking")


async def _has_fired(runtime: Runtime, *keys: str) -> bool:
    """True when just these have fired, once each."""
    found = {key: kept["numbers"] for key, kept in (await states(runtime, "reminded", "notes")).items()}
    return found == {key: [1] for key in keys}


async def _shows_postgres(runtime: Runtime, hours: int) -> bool:
    shown: datetime = await value(runtime, "select clock_timestamp()")
    return abs(shown - datetime.now(UTC) - timedelta(hours=hours)) < timedelta(minutes=10)
