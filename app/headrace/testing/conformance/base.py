"""What the suites share: how a log is opened, a topic of the test's own, and promises that a backend does not make."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

import pytest
import pytest_asyncio

from headrace.log.ports import Log

OpenLog = Callable[[], AbstractAsyncContextManager[Log]]

DEADLINE_SECONDS = 60.0
MANY_BYTES = 2**30
SHARED_GROUP = "shared group"
SURVIVES_RESTART = "survives restart"
ATOMIC_PUBLISH = "atomic publish"


class Suite:
    """The fixtures of a conformance suite."""

    pytestmark: ClassVar = [pytest.mark.asyncio]

    unclaimed: ClassVar[Mapping[str, str]] = {}
    """Promise (one of the constants of this module) -> why the backend does not make it."""

    @pytest.fixture
    def open_log(self) -> OpenLog:
        raise NotImplementedError("a conformance suite needs the fixture `open_log`")

    @pytest_asyncio.fixture
    async def log(self, open_log: OpenLog) -> AsyncIterator[Log]:
        async with open_log() as opened:
            yield opened

    @pytest.fixture
    def topic(self, request: pytest.FixtureRequest) -> str:
        """A name of this test's own, so that one search tells its story."""
        return f"{re.sub(r'[^a-zA-Z0-9]+', '-', request.node.name)[:80]}-{secrets.token_hex(4)}"

    def _need(self, promise: str) -> None:
        if reason := self.unclaimed.get(promise):
            pytest.skip(reason)
