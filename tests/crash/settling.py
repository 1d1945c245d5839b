"""The end of a run: everything that was published is applied, and a last wave shows what owners remember."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import Consumer, TopicPartition

from tests.crash.cluster import NAME, TOPICS
from tests.crash.machine import Machine
from tests.crash.streams import events_of

LOOK_SECONDS = 0.25
"""Between two looks, which cost the servers something."""
WAVE = 500
"""Events of keys that are in use, published when all is quiet: an owner that remembers a state which Postgres does not
have writes it back."""
LEFT = """
select (select count(*) from headrace.lane) as lanes, (select count(*) from headrace.parked) as parked,
       (select count(*) from headrace.timer) as timers, (select count(*) from headrace.effect) as effects,
       (select count(*) from headrace.outbox) as outbox,
       (select count(*) from headrace.saga where ended_at is null) as sagas,
       (select count(*) from headrace.claim where owner is null) as unowned,
       (select count(*) from headrace.ledger join headrace.claim using (subscription, topic, partition)
        where emits is not null and ledger.sequence > claim.emitted_through) as unmarked
"""
WAITING_SAGAS = """
select saga.partition, saga.key, saga.status, saga.step, started_at::text, changed_at::text, state.data->>'history'
from headrace.saga left join headrace.state using (subscription, key) where ended_at is null order by started_at limit 5
"""
SAGA_TOPICS = (f"{NAME}-orders", f"{NAME}-work")
CLAIMS = "select subscription, topic, partition, next_offset from headrace.claim where topic = any($1::text[])"


async def settle(machine: Machine) -> None:
    """Return when nothing waits, behind a last wave as well. Raises: TimeoutError that names what still waits."""
    began = time.monotonic()
    await _until_quiet(machine)
    machine.history.settled_seconds = time.monotonic() - began
    await asyncio.to_thread(machine.load.wave, WAVE)
    await _until_quiet(machine)


async def _until_quiet(machine: Machine) -> None:
    """Return when nothing waits. Raises: TimeoutError (of what waits, nothing has become less for too long)."""
    progress = Progress()
    while any((left := await _left(machine)).values()):
        if progress.seconds_since(left) > machine.plan.patience:
            left |= await _lags(machine)
            waits = ", ".join(f"{name} {count}" for name, count in left.items() if count)
            sagas = await machine.watch.fetch(WAITING_SAGAS)
            events = await asyncio.to_thread(_events_of, machine, {row["key"] for row in sagas})
            details = f" ({'; '.join([*(str(tuple(row)) for row in sagas), *events])})" if sagas else ""
            raise TimeoutError(f"for {machine.plan.patience:g} s nothing of what waits became less: {waits}{details}")
        await asyncio.sleep(LOOK_SECONDS)


class Progress:
    """When something last became less than it ever was: what grows and shrinks for ever is no progress."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._least: dict[str, int] = {}
        self._since = now()

    def seconds_since(self, counts: Mapping[str, int]) -> float:
        """Return for how many seconds none of the counts, by name, has fallen below its least."""
        now = self._now()
        if any(count < self._least.get(name, count) for name, count in counts.items()):
            self._since = now
        self._least |= {name: min(count, self._least.get(name, count)) for name, count in counts.items()}
        return now - self._since


async def _left(machine: Machine) -> dict[str, int]:
    """Return what waits in Postgres; if nothing does, what waits in the log."""
    (counts,) = await machine.watch.fetch(LEFT)
    if any(counts.values()):
        return dict(counts)
    behind = await _lags(machine)
    (counts,) = await machine.watch.fetch(LEFT)  # an event of the log may have set a timer meanwhile
    return {**behind, **dict(counts)}


async def _lags(machine: Machine) -> dict[str, int]:
    """Return how many records each subscription has not read."""
    ends = await asyncio.to_thread(_ends, machine)
    claims = await machine.watch.fetch(CLAIMS, TOPICS)
    behind = {f"lag of {row['subscription']}": 0 for row in claims}
    for row in claims:
        behind[f"lag of {row['subscription']}"] += ends[row["topic"], row["partition"]] - row["next_offset"]
    return behind


def _events_of(machine: Machine, keys: Collection[str]) -> list[str]:
    """Return the events of sagas that are in the log, with their places: what is missing was lost on the way there."""
    return [
        f"{event.topic}/{event.partition}@{event.offset} {event.type} {event.id} of {event.at}"
        for topic in SAGA_TOPICS
        for event in events_of(machine.cluster.bootstrap, topic, machine.plan.partitions)
        if event.key in keys
    ]


def _ends(machine: Machine) -> dict[tuple[str, int], int]:
    consumer = Consumer({"bootstrap.servers": machine.cluster.bootstrap, "group.id": "crash", "log_level": 0})
    try:
        return {
            (topic, number): consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
            for topic in TOPICS
            for number in range(machine.plan.partitions)
        }
    finally:
        consumer.close()
