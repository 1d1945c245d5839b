"""What a batch costs, counted: a change that makes the path of an event longer fails here, on any machine.

The counts are those of the wire, through a proxy that reads Postgres' protocol, and calls of a model's own checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import asyncpg
import pytest
from pydantic import BaseModel, field_serializer, model_validator

from headrace import Event, Headrace, State, Transaction, sql
from headrace.database import heartbeat
from headrace.engine.pace import Pace
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.outbox import relay as outbox
from headrace.settings import Settings
from tests.support.counting_proxy import CountingProxy, Counts
from tests.support.platform import Notes, notebook, noted, publish, running, settings_for
from tests.support.waiting import until

SIZES = (1, 100, 10_000)
LEDGER_BYTES = 28
"""Of an event in its batch's row: identity (16), offset (8) and CRC-32 of its data (4)."""
COMMITS = ("COMMIT", sql.batch.COMMIT)
POOL_RESET = "SELECT pg_advisory_unlock_all()"
"""What a pool sends when it takes a connection back that a handler has had."""
NOTHING_ELSE = Pace(target=60.0, watch=3_600.0, gauge=3_600.0)
"""The engine asks Postgres for nothing but what a batch needs, and takes the time for the whole batch."""

Service = Callable[[Settings, str], Headrace]


@pytest.fixture(autouse=True)
def _nothing_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox and the heartbeat go by the clock as well, and a slow machine's batch of 10,000 outlasts that."""
    monkeypatch.setattr(outbox, "TICK_SECONDS", 3_600.0)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 3_600.0)


class Cost(NamedTuple):
    """What one batch cost."""

    counts: Counts
    statements: list[str]
    ledger_bytes: int


def _noting_in_a_transaction(settings: Settings, topic: str) -> Headrace:
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    notes = platform.subscription("notes")

    @notes.on(Noted)
    async def note(event: Noted, kept: State[Notes], transaction: Transaction) -> None:
        kept.numbers.append(event.number)

    return platform


async def test_small_batch_is_committed_by_one_statement(database_url: str, topic_name: str) -> None:
    """States read; then states, claim and ledger written by a statement that is its own transaction."""
    cost = (await _costs(database_url, topic_name, notebook))[1]
    assert cost.counts == Counts(statements=2, round_trips=2, commits=1), cost
    assert cost.statements[-1] == sql.batch.COMMIT


@pytest.mark.parametrize(("service", "most", "resets"), [(notebook, 5, 0), (_noting_in_a_transaction, 7, 1)])
async def test_statements_do_not_grow_with_the_batch(
    database_url: str, topic_name: str, service: Service, most: int, resets: int
) -> None:
    """States read; BEGIN, states written, claim and ledger, COMMIT; with Transaction, its time limit and claim's lock.

    The client waits once for each. Small batches have a transaction of their own as well if a handler takes one.
    """
    costs = await _costs(database_url, topic_name, service, POOL_RESET if resets else COMMITS)
    if not resets:
        del costs[1]
    for size, (counts, sent, _) in costs.items():
        own = [each for each in sent if not each.startswith(POOL_RESET)]
        assert len(own) <= most, (size, sent)
        assert counts.round_trips <= most + resets, (size, sent)
        assert counts.commits == 1, (size, sent)
        assert own[-1].startswith("COMMIT"), sent
        assert "update headrace.claim" in own[-2], "the claim is compared last, right before the COMMIT"
    assert len({cost.counts for cost in costs.values()}) == 1, {size: cost.counts for size, cost in costs.items()}


async def test_ledger_keeps_28_bytes_of_an_event(database_url: str, topic_name: str) -> None:
    costs = await _costs(database_url, topic_name, notebook)
    assert {size: cost.ledger_bytes for size, cost in costs.items()} == {size: size * LEDGER_BYTES for size in SIZES}


async def test_each_event_is_decoded_once_and_each_state_written_once(database_url: str, topic_name: str) -> None:
    """Ten events of each of 100 keys make 1,000 decoded events and 100 written states."""
    calls: Counter[str] = Counter()
    platform = _counted(settings_for(database_url, partitions=1), topic_name, calls)
    connection = await asyncpg.connect(database_url)
    async with running(platform, MemoryLog(), pace=NOTHING_ELSE) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number}", 0) for number in range(100)))
        await until(lambda: _is_applied(connection, 100), "the states are known")
        calls.clear()
        await publish(runtime, *(noted(topic_name, f"page-{number % 100}", number) for number in range(1_000)))
        await until(lambda: _is_applied(connection, 1_100), "the batch is applied")
        assert await connection.fetchval("select count(*) from headrace.ledger") == 2
    await connection.close()
    assert calls["event"] == 1_000
    assert calls["state"] == 100


async def _costs(
    database_url: str, topic: str, service: Service, last: str | tuple[str, ...] = COMMITS
) -> dict[int, Cost]:
    """Return the cost of a batch of each size, all of new keys, once the connections know their statements.

    `last`: how the last statement of a batch may begin.
    """
    costs, applied, log = {}, 0, MemoryLog()
    connection = await asyncpg.connect(database_url)
    async with CountingProxy(database_url) as proxy:
        settings = settings_for(proxy.url, partitions=1, pool_size=2, batch_records=max(SIZES))
        async with running(service(settings, topic), log, pace=NOTHING_ELSE):
            for size in (*(1, 100) * 6, *SIZES):
                before, sent = proxy.counts(), len(proxy.statements)
                await log.publish(_events(topic, applied, size))
                applied += size
                await until(lambda: _is_applied(connection, applied), f"a batch of {size} is applied")  # noqa: B023
                await until(
                    lambda: (
                        any(each.startswith(last) for each in proxy.statements[sent:])  # noqa: B023
                        and proxy.counts().commits > before.commits  # noqa: B023
                    ),
                    "the batch is over, whatever the start of the process still asks behind the first ones",
                )
                costs[size] = Cost(proxy.counts().since(before), proxy.statements[sent:], await _ledger(connection))
    await connection.close()
    return costs


def _events(topic: str, first: int, count: int) -> Sequence[NewRecord]:
    return [noted(topic, f"page-{number}", number) for number in range(first, first + count)]


async def _is_applied(connection: asyncpg.Connection, events: int) -> bool:
    return bool(await connection.fetchval("select sum(next_offset) from headrace.claim") == events)


async def _ledger(connection: asyncpg.Connection) -> int:
    return int(
        await connection.fetchval("select length(ids) + length(marks) from headrace.ledger order by sequence desc")
    )


def _counted(settings: Settings, topic: str, calls: Counter[str]) -> Headrace:
    """Return a notebook whose models count how often they are checked and written."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

        @model_validator(mode="after")
        def count(self) -> Noted:
            calls["event"] += 1
            return self

    class Kept(BaseModel):
        last: int = 0

        @field_serializer("last")
        def count(self, last: int) -> int:
            calls["state"] += 1
            return last

    notes = platform.subscription("notes")

    @notes.on(Noted)
    def note(event: Noted, kept: State[Kept]) -> None:
        kept.last = event.number + 1

    return platform
