"""One fetch at a time: a fetch that misbehaves ends no worker in silence and holds no stop up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from headrace.engine import fetches as module
from headrace.engine.fetches import Fetches
from headrace.errors import TransportError
from headrace.log.ports import Record, TopicPartition

FOUND: dict[TopicPartition, list[Record]] = {TopicPartition("pages", 0): []}


class OddReader:
    """A reader whose fetch does as it was told."""

    def __init__(self, fetch: Any) -> None:
        self.fetch = fetch


async def test_client_that_cancels_its_own_fetch_is_away() -> None:
    async def cancelled(*_: object) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(TransportError, match="cancelled its own fetch"):
        await _fetches(cancelled).wait(1.0, _never())


async def test_fetch_that_swallows_its_cancellation_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANCEL_SECONDS", 0.01)
    over = asyncio.Event()

    async def deaf(*_: object) -> Any:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()
        return {}

    fetches, stopped = _fetches(deaf), _told()
    assert await fetches.wait(1.0, stopped) is None
    await asyncio.wait_for(fetches.stop(), 10)
    over.set()


async def test_fetch_outlives_a_wait_that_a_stop_ends() -> None:
    asked, answer = 0, asyncio.Event()

    async def slow(*_: object) -> Any:
        nonlocal asked
        asked += 1
        await answer.wait()
        return FOUND

    fetches = _fetches(slow)
    assert await fetches.wait(1.0, _told()) is None
    answer.set()
    assert await fetches.wait(1.0, _never()) is FOUND
    assert asked == 1


def _fetches(fetch: Any) -> Fetches:
    return Fetches(OddReader(fetch), 10, 1_000)  # type: ignore[arg-type]


def _told() -> asyncio.Task[bool]:
    told = asyncio.Event()
    told.set()
    return asyncio.create_task(told.wait())


def _never() -> asyncio.Task[bool]:
    return asyncio.create_task(asyncio.Event().wait())
