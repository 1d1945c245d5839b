"""What a handler raised is in the log: message and traceback once, and a line for every further batch that failed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from headrace.log.memory import MemoryLog
from headrace.telemetry.logging import FIELDS
from tests.support.platform import notebook, noted, pages, publish, running, settings_for, until_settled
from tests.support.waiting import until


@pytest.fixture
def entries(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[dict[str, Any]]]:
    """What the engine logged so far under a message, as fields."""
    caplog.set_level(logging.INFO, "headrace")

    def found(beginning: str) -> list[dict[str, Any]]:
        records = [record for record in caplog.records if record.getMessage().startswith(beginning)]
        return [getattr(record, FIELDS) for record in records]

    return found


Entries = Callable[[str], list[dict[str, Any]]]


async def test_first_failure_is_logged_with_message_and_traceback(
    database_url: str, topic_name: str, entries: Entries
) -> None:
    def sell(event: Any) -> None:
        raise ValueError(f"stock service said no for {event.page}")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, sell)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "k3", 1, id="e1"))
        await until_settled(runtime, "notes")
    (first,) = entries("a handler raised, its batch runs again")
    assert first["error_type"] == "ValueError"
    assert first["error"] == "stock service said no for k3"
    assert "in sell" in first["exception"] and first["exception"].endswith("ValueError: stock service said no for k3")
    assert "engine/run.py" not in first["exception"]
    assert (first["event_id"], first["topic"], first["offset"]) == ("e1", topic_name, 0)
    assert first["handler"].endswith("note")
    parked, *_ = entries("event parked")
    assert parked["error"] == "stock service said no for k3"
    (letter,) = entries("dead letter")
    assert letter["error"] == "stock service said no for k3"
    assert "exception" not in parked and "exception" not in letter


async def test_failure_that_does_not_come_back_is_logged(database_url: str, topic_name: str, entries: Entries) -> None:
    runs: Counter[int] = Counter()

    def stumble(event: Any) -> None:
        runs[event.number] += 1
        if runs[event.number] == 1:
            raise ConnectionResetError("the peer went away")

    platform = notebook(settings_for(database_url, partitions=1), topic_name, stumble)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}
    (told,) = entries("a handler raised, its batch runs again")
    assert (told["error_type"], told["error"]) == ("ConnectionResetError", "the peer went away")
    assert "in stumble" in told["exception"]
    assert entries("event parked") == []


async def test_class_gets_one_traceback_a_minute_and_another_its_own(
    database_url: str, topic_name: str, entries: Entries
) -> None:
    """The events of one lane run with care, so that the second class is first met there."""

    def fail(event: Any) -> None:
        raise ValueError("odd") if event.number != 3 else KeyError("three")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, "a", number) for number in (1, 2, 3, 4)))
        await until_settled(runtime, "notes")
    told = entries("a handler raised")
    assert [entry["error_type"] for entry in told if "exception" in entry] == ["ValueError", "KeyError"]
    (three,) = [entry for entry in told if entry["error_type"] == "KeyError"]
    assert "in fail" in three["exception"] and three["offset"] == 2
    assert [(entry["error_type"], entry["error"]) for entry in entries("dead letter")] == [
        ("ValueError", "odd"),
        ("ValueError", "odd"),
        ("KeyError", "'three'"),
        ("ValueError", "odd"),
    ]


@pytest.mark.parametrize(("detail", "said"), [("message", "secret of a"), ("type", None)])
async def test_setting_leaves_out_what_a_team_does_not_want(
    database_url: str, topic_name: str, entries: Entries, detail: Any, said: str | None
) -> None:
    def fail(event: Any) -> None:
        raise ValueError(f"secret of {event.page}")

    settings = settings_for(database_url, partitions=1).model_copy(update={"log_handler_errors": detail})
    platform = notebook(settings, topic_name, fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: entries("event parked"), "the failure is logged")
    for entry in (*entries("a handler raised"), *entries("event parked")):
        assert entry["error_type"] == "ValueError"
        assert entry.get("error") == said
        assert "exception" not in entry
