"""The memory log keeps the promises of a log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from headrace.log.memory import MemoryLog
from headrace.log.ports import Log
from headrace.testing.conformance import LogSuite, OpenLog


class TestMemoryLog(LogSuite):
    unclaimed: ClassVar[Mapping[str, str]] = {
        "shared group": "a memory log belongs to one process, which owns every partition",
        "survives restart": "a memory log lives as long as its process",
    }

    @pytest.fixture
    def open_log(self) -> OpenLog:
        return memory_log


@asynccontextmanager
async def memory_log() -> AsyncIterator[Log]:
    log = MemoryLog()
    await log.start()
    yield log
    await log.stop()
