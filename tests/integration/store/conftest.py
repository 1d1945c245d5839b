"""Fixtures of the tests of the event store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from headrace import Headrace
from headrace.log.memory import MemoryLog
from tests.support.accounts import bank
from tests.support.platform import running, settings_for


@pytest_asyncio.fixture
async def events(database_url: str) -> AsyncIterator[Headrace]:
    """A bank that runs."""
    platform = bank(settings_for(database_url))
    async with running(platform, MemoryLog()):
        yield platform
