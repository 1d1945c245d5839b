"""How soon the partitions of a member that is gone have another owner: after a kill, and after a polite leave."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from headrace.log.ports import TopicPartition
from headrace.testing.conformance.log_suite import Seat
from tests.integration.log.support import kafka_log
from tests.support.kafka import KafkaServer
from tests.support.waiting import until

SESSION_SECONDS = 6.0
GRACE_SECONDS = 2.0
OPTIONS: dict[str, Any] = {"session_timeout_seconds": SESSION_SECONDS, "heartbeat_seconds": 0.5}
LONG: dict[str, Any] = {"session_timeout_seconds": 60.0, "heartbeat_seconds": 0.5}
PARTITIONS = 6


class Stubborn(Seat):
    """A member that joins anew only when it is told to."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.is_asked = asyncio.Event()
        self.may_join = asyncio.Event()

    async def rebalancing(self) -> None:
        self.is_asked.set()
        await self.may_join.wait()
        await super().rebalancing()


@asynccontextmanager
async def killable(kafka: KafkaServer, topic: str) -> AsyncIterator[Process]:
    """Yield a member in a process of its own once it has partitions."""
    command = ["-m", "tests.integration.log.member", kafka.url, topic, topic, str(SESSION_SECONDS)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (await process.stdout.readline()).strip():
                pass
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def everything(topic: str) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, number) for number in range(PARTITIONS))


async def test_a_killed_member_is_replaced_after_its_session(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url, **OPTIONS) as log:
        await log.create(topic_name, PARTITIONS)
        seats = [Seat(log, topic_name, [topic_name]) for _ in range(2)]
        for seat in seats:
            await seat.start()
        async with killable(kafka, topic_name) as process:
            for seat in seats:
                await seat.owns(lambda owned: len(owned) == 2)

            process.kill()

            await until(
                lambda: (
                    seats[0].owned | seats[1].owned == everything(topic_name) and not seats[0].owned & seats[1].owned
                ),
                "the others own all",
                SESSION_SECONDS + GRACE_SECONDS,
            )
        for seat in seats:
            await seat.stop()


async def test_a_kill_and_polite_leaves_cost_one_session(kafka: KafkaServer, topic_name: str) -> None:
    """The first that leaves starts a rebalance, in which the second waits for the dead one when it leaves, too."""
    async with kafka_log(kafka.url, **OPTIONS) as log:
        await log.create(topic_name, PARTITIONS)
        first, second, last = (Seat(log, topic_name, [topic_name]) for _ in range(3))
        for seat in (first, second, last):
            await seat.start()
        async with killable(kafka, topic_name) as process:
            for seat in (first, second, last):
                await seat.owns(lambda owned: 1 <= len(owned) <= 2)

            process.kill()
            dead_at = asyncio.get_running_loop().time()
            await first.stop()
            await until(lambda: second.is_rebalancing and last.is_rebalancing, "both wait for the dead one")
            await second.stop()

            spent = asyncio.get_running_loop().time() - dead_at
            assert last.owned != everything(topic_name)
            await until(
                lambda: last.owned == everything(topic_name),
                "the last one owns all",
                SESSION_SECONDS + GRACE_SECONDS - spent,
            )
        await last.stop()


async def test_a_member_that_leaves_while_it_joins_is_gone(kafka: KafkaServer, topic_name: str) -> None:
    """It would be counted in otherwise, and its share would belong to nobody until its session is over."""
    async with kafka_log(kafka.url, **LONG) as log:
        await log.create(topic_name, PARTITIONS)
        owner = Stubborn(log, topic_name, [topic_name])
        await owner.start()
        await owner.owns(lambda owned: owned == everything(topic_name))
        guest = Seat(log, topic_name, [topic_name])
        await guest.start()
        await owner.is_asked.wait()

        await guest.stop()
        owner.may_join.set()

        await until(lambda: owner.assignments == 2, "the owner is told", 20)
        assert owner.owned == everything(topic_name)
        await owner.stop()


async def test_a_member_that_leaves_waits_for_the_others(kafka: KafkaServer, topic_name: str) -> None:
    """It works meanwhile: what it had stands still from its release on, and nobody else could have it before."""
    async with kafka_log(kafka.url, **LONG | {"heartbeat_seconds": 1.0}) as log:
        await log.create(topic_name, PARTITIONS)
        owner, guest = Stubborn(log, topic_name, [topic_name]), Seat(log, topic_name, [topic_name])
        owner.may_join.set()
        await owner.start()
        await guest.start()
        await until(lambda: len(owner.owned) == len(guest.owned) == PARTITIONS / 2, "both have their share")
        owner.may_join.clear()
        owner.is_asked.clear()

        leaving = asyncio.create_task(guest.stop())
        await owner.is_asked.wait()
        await asyncio.wait({leaving}, timeout=1.5)  # more than it takes to hear of it
        assert not leaving.done()

        owner.may_join.set()
        await leaving
        assert await log._control.is_dividing(topic_name) is False
        await owner.owns(lambda owned: owned == everything(topic_name))
        await owner.stop()


async def test_nothing_is_committed_in_a_rebalance(kafka: KafkaServer, topic_name: str) -> None:
    """Members work on meanwhile. A commit that comes late is refused, and the client joins once more for that."""
    async with kafka_log(kafka.url, **LONG) as log:
        await log.create(topic_name, PARTITIONS)
        owner, guest = Stubborn(log, topic_name, [topic_name]), Seat(log, topic_name, [topic_name])
        await owner.start()
        await owner.owns(lambda owned: owned == everything(topic_name))
        await owner.membership.commit(dict.fromkeys(owner.owned, 1))
        await guest.start()
        await owner.is_asked.wait()

        await owner.membership.commit(dict.fromkeys(owner.owned, 2))

        assert await _committed(kafka, topic_name) == {1}
        owner.may_join.set()
        await owner.owns(lambda owned: len(owned) == 3)
        await owner.membership.commit(dict.fromkeys(owner.owned, 2))
        assert await _committed(kafka, topic_name) == {1, 2}
        for seat in (owner, guest):
            await seat.stop()


async def _committed(kafka: KafkaServer, group: str) -> set[int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        return {found.offset for found in (await admin.list_consumer_group_offsets(group)).values()}
    finally:
        await admin.close()


async def test_a_polite_leave_hands_over_at_once(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url, **LONG) as log:
        await log.create(topic_name, PARTITIONS)
        leaver, heir = (Seat(log, topic_name, [topic_name]) for _ in range(2))
        for seat in (leaver, heir):
            await seat.start()
        for seat in (leaver, heir):
            await seat.owns(lambda owned: len(owned) == 3)

        await leaver.stop()

        await until(lambda: heir.owned == everything(topic_name), "the heir owns all", 20)
        await heir.stop()
