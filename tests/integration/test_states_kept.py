"""States in a real Postgres: they survive a restart whole, or the event that spoils them fails."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from headrace import Event, Headrace, State
from headrace.keeping import Keeping
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.settings import Settings
from headrace.state.store import write
from tests.support.platform import fetch, publish, record, running, settings_for, states, until_settled, value


class Meter(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    total_litres: int = Field(0, ge=0)
    lowest_flow: float | None = None


def metered(settings: Settings, topic: str) -> Headrace:
    """Return a service that adds litres to a meter; 0 changes nothing, and -1 and -2 leave what JSON cannot keep."""
    platform = Headrace("metering", settings)

    class Read(Event, type="read", topic=topic, key="meter"):
        meter: str
        litres: int

    @platform.subscription("meters").on(Read)
    def add(event: Read, meter: State[Meter]) -> None:
        if event.litres == -1:
            meter.lowest_flow = math.inf
        elif event.litres == -2:
            meter.total_litres = -5
        else:
            meter.total_litres += event.litres

    return platform


def reading(topic: str, meter: str, litres: int) -> NewRecord:
    """Return the record of one reading."""
    return record(topic, "read", {"meter": meter, "litres": litres}, key=meter)


async def test_state_with_aliases_survives_a_restart(database_url: str, topic_name: str) -> None:
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    for litres in (300, 1):
        async with running(metered(settings, topic_name), log) as runtime:
            await publish(runtime, reading(topic_name, "a", litres))
            await until_settled(runtime, "meters")
            found = await states(runtime, "meters", "meter")
    assert found == {"a": {"total_litres": 301, "lowest_flow": None}}


KEYS = ["", "\x1f", "a\x1fb", "\n", '{"a,b"}', "\\", "null", "\u00e4\u2028"]


@pytest.mark.parametrize("keys", [KEYS, *([key] for key in KEYS)])
async def test_any_text_is_a_key(database_url: str, topic_name: str, keys: list[str]) -> None:
    async with running(metered(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        for version in (1, 2):
            rows = [(key, version, json.dumps({"key": key, "version": version}).encode()) for key in sorted(keys)]
            assert runtime.pool is not None
            async with runtime.pool.acquire() as connection:
                await write(connection, "metering.meters", 0, "meter", rows, Keeping("meter"))
        stored = await fetch(runtime, "select key, version, data from headrace.state")
    found = {row["key"]: (row["version"], json.loads(row["data"])) for row in stored}
    assert found == {key: (2, {"key": key, "version": 2}) for key in keys}


async def test_loaded_state_is_written_only_if_it_changes(database_url: str, topic_name: str) -> None:
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    for litres in (300, 0, 0):
        async with running(metered(settings, topic_name), log) as runtime:
            await publish(runtime, reading(topic_name, "a", litres))
            await until_settled(runtime, "meters")
            assert await value(runtime, "select version from headrace.state") == 1


async def test_stored_state_without_a_class_is_named_at_start(
    database_url: str, topic_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A renamed class is another state: its old rows stay behind, and the log says so."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    async with running(metered(settings, topic_name), log) as runtime:
        await publish(runtime, reading(topic_name, "a", 300), reading(topic_name, "b", 1))
        await until_settled(runtime, "meters")
        assert "stored state without a class" not in caplog.text
        sql = "insert into headrace.state select subscription, $1, key, partition, version, data from headrace.state"
        for state in ("gauge", "tap"):
            await fetch(runtime, sql + " where state = 'meter'", state)
    async with running(metered(settings, topic_name), log):
        found = [str(record.__dict__) for record in caplog.records if record.name == "headrace.state"]
    assert len(found) == 2
    assert "'state': 'gauge'" in found[0]
    assert "'state': 'tap'" in found[1]


async def test_event_that_spoils_a_state_fails_alone(database_url: str, topic_name: str) -> None:
    settings = settings_for(database_url, partitions=1, retry_attempts=1)
    async with running(metered(settings, topic_name), MemoryLog()) as runtime:
        litres = [("a", 5), ("b", 5), ("b", -1), ("b", 1), ("c", -2), ("a", 1)]
        await publish(runtime, *(reading(topic_name, meter, each) for meter, each in litres))
        await until_settled(runtime, "meters")
        found = await states(runtime, "meters", "meter")
        assert {key: each["total_litres"] for key, each in found.items()} == {"a": 6, "b": 6}
        letters = await fetch(runtime, "select key, error from headrace.dead_letter order by key")
        assert [row["key"] for row in letters] == [b"b", b"c"]
        assert "lowest_flow is inf or nan, which JSON cannot hold" in letters[0]["error"]
        assert "total_litres: Input should be greater than or equal to 0" in letters[1]["error"]
