"""Small batches of several partitions share a commit, and one that is at fault harms none of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from headrace.database import pool
from headrace.engine import group_commit
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.runtime import Runtime
from tests.support.obstacles import is_waiting_for_a_lock
from tests.support.platform import (
    execute,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
)
from tests.support.postgres_proxy import PostgresProxy
from tests.support.waiting import until

PARTITIONS = 4
PAGES = [
    next(f"p{n}" for n in range(99) if partition_for(f"p{n}".encode(), PARTITIONS) == at) for at in range(PARTITIONS)
]
"""A page for each partition."""
NUMBERS = [1, 2]


@asynccontextmanager
async def patient_groups() -> AsyncIterator[None]:
    """Let a group wait for a lock as long as any other statement."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_commit, "LOCK_MILLISECONDS", 10_000)
        yield


@asynccontextmanager
async def first_waiting(database_url: str, topic: str) -> AsyncIterator[Runtime]:
    """Yield while the batch of partition 0 waits for its claim.

    At the end of the block it goes on, and everything is settled.
    """
    platform = notebook(settings_for(database_url, partitions=PARTITIONS), topic)
    other = await asyncpg.connect(database_url)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic, page, 1) for page in PAGES))
        await until_settled(runtime, "notes")
        async with other.transaction():
            await other.execute("select from headrace.claim where partition = 0 for update")
            await publish(runtime, noted(topic, PAGES[0], 2))
            await until(lambda: is_waiting_for_a_lock(runtime), "the first batch waits for its claim")
            yield runtime
        await until_settled(runtime, "notes")
        assert await pages(runtime) == dict.fromkeys(PAGES, NUMBERS)
    await other.close()


@asynccontextmanager
async def gathering(database_url: str, topic: str) -> AsyncIterator[Runtime]:
    """Yield while the batches of the other partitions wait for that of partition 0 as well."""
    async with patient_groups(), first_waiting(database_url, topic) as runtime:
        await publish(runtime, *(noted(topic, page, 2) for page in PAGES[1:]))
        waiting = runtime.consumers["notes"].workers[1].tenure
        assert waiting is not None
        group = waiting.processor.context.group_commit
        await until(lambda: len(group._waiting) == PARTITIONS - 1, "the other batches wait")
        yield runtime


async def test_batches_that_wait_share_a_transaction(database_url: str, topic_name: str) -> None:
    async with gathering(database_url, topic_name) as runtime:
        pass
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("select partition, xmin::text from headrace.ledger where sequence = 2")
    await connection.close()
    transactions = {row["partition"]: row["xmin"] for row in rows}
    assert len({transactions[number] for number in range(1, PARTITIONS)}) == 1
    assert transactions[0] != transactions[1]
    assert sample(runtime, "batch_reruns_total") == 0


@pytest.mark.parametrize(
    ("fault", "metric", "labels"),
    [
        (
            "update headrace.claim set epoch = epoch + 1, token = gen_random_uuid(), owner = null where partition = 1",
            "claim_fenced_total",
            {},
        ),
        (
            "update headrace.state set version = version + 1 where partition = 1",
            "batch_reruns_total",
            {"cause": "conflict"},
        ),
    ],
    ids=["claim lost", "state changed elsewhere"],
)
async def test_batch_at_fault_harms_none_of_its_group(
    database_url: str, topic_name: str, fault: str, metric: str, labels: dict[str, str]
) -> None:
    async with gathering(database_url, topic_name) as runtime:
        await execute(database_url, fault)
    assert sample(runtime, metric, **labels) == 1
    assert sample(runtime, "batch_reruns_total") + sample(runtime, "claim_fenced_total") == 1
    assert sample(runtime, "db_errors_total") == 0


async def test_group_survives_a_member_that_is_not_waited_for(database_url: str, topic_name: str) -> None:
    """A worker that is abandoned while its batch waits: the batch is committed or not, and the others do not care."""
    async with gathering(database_url, topic_name) as runtime:
        runtime.consumers["notes"].workers[1].abandon()
    assert sample(runtime, "batch_reruns_total") == 0


async def test_stop_does_not_wait_for_a_postgres_that_was_not_asked(database_url: str, topic_name: str) -> None:
    """The batch is not in doubt: no connection was to be had for it."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(PostgresProxy(database_url))
        platform = notebook(settings_for(proxy.url, partitions=1), topic_name)
        async with running(platform, MemoryLog()) as runtime:
            await publish(runtime, noted(topic_name, "a", 1))
            await until_settled(runtime, "notes")
            await stack.aclose()
            await publish(runtime, noted(topic_name, "a", 2))
            await until(lambda: sample(runtime, "batch_reruns_total", cause="infrastructure"), "the batch waits")
            assert sample(runtime, "db_commit_unknown_total") == 0
    assert runtime.is_clean


async def test_claim_that_stays_locked_holds_up_no_other(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while an operator accepts a topic of another subscription, and its log does not answer."""
    monkeypatch.setattr(pool, "_LOCK_TIMEOUT_SECONDS", 60.0)
    async with first_waiting(database_url, topic_name) as runtime:
        await publish(runtime, *(noted(topic_name, page, 2) for page in PAGES[1:]))
        expected = {page: NUMBERS if page != PAGES[0] else [1] for page in PAGES}

        async def are_applied() -> bool:
            return await pages(runtime) == expected

        await until(are_applied, "the other batches are committed", 15)
        assert sample(runtime, "db_errors_total") == 0
