"""The Kafka log keeps the promises of a log, on a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from headrace.log.kafka import KafkaLog
from headrace.log.ports import Log
from headrace.settings import Settings
from headrace.testing.conformance import LogSuite, OpenLog
from tests.support.kafka import KafkaServer


class TestKafkaLog(LogSuite):
    unclaimed: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def open_log(self, kafka: KafkaServer) -> OpenLog:
        @asynccontextmanager
        async def kafka_log() -> AsyncIterator[Log]:
            log = KafkaLog(Settings(log=kafka.url))
            await log.start()
            try:
                yield log
            finally:
                await log.stop()

        return kafka_log
