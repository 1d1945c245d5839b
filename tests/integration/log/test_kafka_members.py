"""A member of a group keeps its seat while it idles, and gets another if its listener fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.testing.conformance.log_suite import Seat
from tests.integration.log.support import kafka_log
from tests.support.kafka import KafkaServer
from tests.support.obstacles import let_pass


async def test_a_spare_member_outlives_max_poll_and_takes_over(kafka: KafkaServer, topic_name: str) -> None:
    """aiokafka takes a member without partitions for idle, and lets it neither beat nor join (its issue 1187)."""
    async with kafka_log(kafka.url, max_poll_seconds=10, session_timeout_seconds=6, heartbeat_seconds=0.5) as log:
        await log.create(topic_name, 1)
        owner, spare = Seat(log, topic_name, [topic_name]), Seat(log, topic_name, [topic_name])
        await owner.start()
        await owner.owns(bool)
        await spare.start()
        await let_pass(seconds=12)  # past max_poll: only time shows what idling does
        keeper, other = (owner, spare) if owner.owned else (spare, owner)
        assert keeper.owned
        assert not other.owned

        await keeper.stop()

        await other.owns(bool)
        await other.stop()


async def test_a_listener_that_fails_gets_a_new_seat(kafka: KafkaServer, topic_name: str) -> None:
    class Failing(Seat):
        calls = 0

        async def assigned(self, partitions: Any, *, was_removed: bool = False) -> None:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("the first time fails")
            await super().assigned(partitions, was_removed=was_removed)

    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 2)
        seat = Failing(log, topic_name, [topic_name])
        await seat.start()

        await seat.owns(lambda owned: len(owned) == 2)
        await seat.stop()


@pytest.mark.parametrize("failure", [RuntimeError, asyncio.CancelledError])
async def test_a_listener_that_always_fails_gets_a_new_seat(
    kafka: KafkaServer, topic_name: str, failure: type[BaseException]
) -> None:
    class Failing(Seat):
        calls = 0
        revocations = 0

        async def assigned(self, partitions: Any, *, was_removed: bool = False) -> None:
            self.calls += 1
            if self.calls <= 2:
                raise failure
            await super().assigned(partitions, was_removed=was_removed)

        async def lost(self, partitions: Any) -> None:
            self.revocations += 1
            raise failure

    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 2)
        seat = Failing(log, topic_name, [topic_name])
        await seat.start()

        await seat.owns(lambda owned: len(owned) == 2)
        assert seat.revocations == 2
        await seat.stop()
