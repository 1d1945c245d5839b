"""A partition that moves to another process waits for its last batch; one that stays does not stand still."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import Any

from headrace.engine.worker import Phase
from headrace.log.memory import MemoryLog
from headrace.log.ports import TopicPartition
from headrace.runtime import Runtime
from tests.support.kafka import KafkaServer
from tests.support.obstacles import Gate, let_pass
from tests.support.platform import (
    execute,
    fetch,
    has_pages,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    value,
)
from tests.support.producing import produce
from tests.support.waiting import until

CLAIMS = "select partition, epoch, split_part(owner, '/', 3) from headrace.claim order by partition"

NO_RELEASE = """
create function public.refuse() returns trigger language plpgsql as $$
begin raise exception 'the database system is starting up' using errcode = '57P03'; end $$;
create trigger refuse before update on headrace.claim for each row when (new.owner is null)
execute function public.refuse();
"""
"""What Postgres answers to a release while it starts."""


async def test_a_partition_that_stays_is_not_claimed_again(
    database_url: str, topic_name: str, kafka: KafkaServer
) -> None:
    """Every member joins anew whenever one comes or goes, and yet only what moves changes its owner."""
    name = f"notes-{secrets.token_hex(4)}"
    await kafka.create_topic(topic_name, 4)
    service = partial(notebook, settings_for(database_url, kafka.url, partitions=4), topic_name, subscription=name)
    async with running(service()) as first:
        assert await _epochs(first) == [1, 1, 1, 1]
        async with running(service(), is_waiting=True) as second:
            await until(lambda: _owns(second, name, 2) and _owns(first, name, 2), "the second has its share")
            stayed = sorted(first.consumers[name].workers)
            await until(lambda: _is_at_work(second, name), "both work")
            assert sorted(await _epochs(first)) == [1, 1, 2, 2]
        await until(lambda: _owns(first, name, 4) and _is_at_work(first, name), "the first has all again")
        epochs = await _epochs(first)
        assert [epochs[number] for number in stayed] == [1, 1]
        assert sample(first, "claim_fenced_total", subscription=name) == 0


async def test_the_next_owner_waits_for_the_last_batch(
    database_url: str, topic_name: str, kafka: KafkaServer, gate: Gate
) -> None:
    """It would be run again if it were fenced: a handler that takes long would count as a death in each rollout."""
    name = f"notes-{secrets.token_hex(4)}"
    await kafka.create_topic(topic_name, 1)
    settings = settings_for(database_url, kafka.url, partitions=1)
    slow, quick = (notebook(settings, topic_name, *held, subscription=name) for held in ((gate,), ()))
    async with running(slow) as first, running(quick, is_waiting=True) as second:
        await until(lambda: not first.consumers[name]._membership.is_alone, "the second waits for work")
        await produce(kafka.bootstrap, [noted(topic_name, "held", 1)])
        await until(gate.entered.is_set, "the batch runs")
        leaving = asyncio.create_task(first.consumers[name].stop(20))
        await until(lambda: _owns(second, name, 1), "the second is given the partition")
        await until(lambda: value(second, "select leaving from headrace.claim"), "the first says that it is letting go")
        await produce(kafka.bootstrap, [noted(topic_name, "held", 2)])
        assert second.consumers[name].workers[0].phase is Phase.CLAIMING
        assert await value(second, "select epoch from headrace.claim") == 1
        gate.open()
        assert await leaving
        state = "select (data->'numbers')::text from headrace.state where key = 'held'"
        await until(lambda: _is(second, state, "[1, 2]"), "the second goes on")
        assert sample(first, "claim_fenced_total", subscription=name) == 0
        assert await value(second, "select count(*) from headrace.ledger where kind = 0") == 2


async def test_claims_are_released_when_postgres_is_back(database_url: str, topic_name: str) -> None:
    """A worker that ends meanwhile would leave its name behind, and the next owner would wait for it."""
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        await execute(database_url, NO_RELEASE)
        leaving = asyncio.create_task(runtime.consumers["notes"].stop(20))
        await let_pass(seconds=0.3)  # nothing happens: only time shows it
        assert not leaving.done()
        await execute(database_url, "drop function public.refuse() cascade")
        assert await leaving
        assert await value(runtime, "select owner from headrace.claim") is None


async def test_what_comes_back_waits_for_its_own_last_batch(database_url: str, topic_name: str, gate: Gate) -> None:
    """The group waits for no batch, so a partition may be given back while it is still being let go."""
    async with running(notebook(settings_for(database_url, partitions=1), topic_name, gate), MemoryLog()) as runtime:
        consumer, partition = runtime.consumers["notes"], TopicPartition(topic_name, 0)
        await publish(runtime, noted(topic_name, "held", 1))
        await until(gate.entered.is_set, "the batch runs")
        for _ in range(2):
            await consumer.assigned([])
            assert not consumer.workers, "it is another's"
            await consumer.assigned([partition])
        await let_pass(seconds=0.3)  # nothing happens: only time shows it
        assert consumer.workers[0].phase is Phase.CLAIMING
        assert await value(runtime, "select epoch from headrace.claim where owner is not null") == 1
        gate.open()
        await publish(runtime, noted(topic_name, "held", 2))
        await until(partial(has_pages, runtime, {"held": [1, 2]}), "the next one goes on")
        assert await value(runtime, "select epoch from headrace.claim where owner is not null") == 2
        assert sample(runtime, "claim_fenced_total", subscription="notes") == 0


async def test_a_fenced_worker_claims_nothing_in_a_rebalance(database_url: str, topic_name: str) -> None:
    """The partition may have been given to the one that has fenced it: it would be taken to and fro."""
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        consumer, partition = runtime.consumers["notes"], TopicPartition(topic_name, 0)
        await consumer.rebalancing()
        await _take_over(runtime)
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: sample(runtime, "claim_fenced_total") == 1, "the worker is fenced")
        consumer.workers[0].try_again()
        await let_pass(seconds=0.3)  # nothing happens: only time shows it
        assert await value(runtime, "select epoch from headrace.claim") == 2
        await consumer.assigned([partition])
        await until(partial(has_pages, runtime, {"a": [1]}), "the partition is still its own")
        assert await pages(runtime) == {"a": [1]}


async def _take_over(runtime: Runtime) -> None:
    await fetch(runtime, "update headrace.claim set epoch = epoch + 1, token = gen_random_uuid(), owner = 'another'")


async def _epochs(runtime: Runtime) -> list[Any]:
    return [row["epoch"] for row in await fetch(runtime, CLAIMS)]


async def _is(runtime: Runtime, query: str, text: str) -> bool:
    return str(await value(runtime, query)) == text


def _owns(runtime: Runtime, name: str, count: int) -> bool:
    return name in runtime.consumers and len(runtime.consumers[name].workers) == count


def _is_at_work(runtime: Runtime, name: str) -> bool:
    return all(worker.phase is Phase.RUNNING for worker in runtime.consumers[name].workers.values())
