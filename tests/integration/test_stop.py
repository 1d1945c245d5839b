"""A stop ends everything that was started, whatever fails on the way."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from headrace.engine.consumer import Consumer
from headrace.log.local import LocalMembership
from headrace.log.memory import MemoryLog
from tests.support.platform import notebook, running, sample, settings_for
from tests.support.web import http_client


class StubbornLog(MemoryLog):
    """A log that cannot be stopped."""

    async def stop(self) -> None:
        raise RuntimeError("the log does not stop")


async def test_steps_that_fail_keep_no_other_from_its_turn(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Consumer, deadline_seconds: float) -> bool:
        await stop(self, deadline_seconds)
        raise RuntimeError("the consumer does not stop")

    stop = Consumer.stop
    monkeypatch.setattr(Consumer, "stop", fail)
    async with running(notebook(settings_for(database_url), topic_name), StubbornLog()) as runtime:
        url = f"http://127.0.0.1:{runtime.management_port}/health/ready"
        await runtime.stop()

    assert runtime.pool is not None and runtime.pool.is_closing()
    assert sample(runtime, "drains_total", outcome="cut_short") >= 1
    async with http_client() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_nothing_of_the_platform_starts_while_its_consumers_stop(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[set[str]] = []

    async def look(self: LocalMembership) -> None:
        alive.append({task.get_name() for task in asyncio.all_tasks()})
        await stop(self)

    stop = LocalMembership.stop
    monkeypatch.setattr(LocalMembership, "stop", look)
    async with running(notebook(settings_for(database_url), topic_name), MemoryLog()):
        assert "ledger" in {task.get_name() for task in asyncio.all_tasks()}

    (names,) = alive
    assert not names & {"ledger", "connect"}


async def test_failure_is_told_to_whoever_waits_for_it(database_url: str, topic_name: str) -> None:
    """Without `ends_process` it is the waiting program that decides what to do."""
    async with running(notebook(settings_for(database_url), topic_name), MemoryLog()) as runtime:
        assert not runtime.failed.done()
        runtime.health.fail("tank", "the tank is empty.")
        assert await asyncio.wait_for(runtime.failed, 30) == "the tank is empty"
        assert runtime.health.readiness() == (False, ["beyond_repair"])
        assert runtime.health.liveness() == (False, ["tank"])
