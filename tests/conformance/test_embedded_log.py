"""The embedded log keeps the promises of a log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import asyncpg
import pytest

from headrace.log.embedded import EmbeddedLog
from headrace.log.ports import Log
from headrace.testing.conformance import LogSuite, OpenLog


class TestEmbeddedLog(LogSuite):
    unclaimed: ClassVar[Mapping[str, str]] = {
        "shared group": "an embedded log is open in one process, which owns every partition"
    }

    @pytest.fixture
    def open_log(self, pool: asyncpg.Pool[Any]) -> OpenLog:
        @asynccontextmanager
        async def embedded_log() -> AsyncIterator[Log]:
            log = EmbeddedLog(pool)
            await log.start()
            try:
                yield log
            finally:
                await log.stop()

        return embedded_log
