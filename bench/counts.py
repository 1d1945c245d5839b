"""How often a contender talks to Postgres, counted on the wire in a run of its own, since counting costs time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from bench.contenders import Contender, Store
from bench.measure import START_SECONDS, process, unless_ended, until_applied
from bench.observer import Observer
from bench.servers import Servers, Topic
from tests.support.counting_proxy import CountingProxy, Counts
from tests.support.waiting import until

EVENTS, SLOW_EVENTS = 120_000, 2_000
"""Twelve full batches of Headrace and of the bare loop; enough of those that work event by event."""
SLOW = 20_000
"""Who reads at most so many events elsewhere is one of those."""


@dataclass(frozen=True)
class Counted:
    """What passed between the first commit and the last event."""

    contender: str
    events: int
    counts: Counts

    @property
    def events_per_commit(self) -> float:
        """How many events share a flush."""
        return self.events / max(1, self.counts.commits)

    @property
    def statements_per_commit(self) -> float:
        """How many statements a transaction has, what a pool sends between two of them included."""
        return self.counts.statements / max(1, self.counts.commits)


async def count_all(
    servers: Servers, contenders: Sequence[Contender], partitions: int, customers: int
) -> list[Counted]:
    """Return the counts of every contender that talks to Postgres by itself."""
    counted = []
    topics: dict[int | None, Topic] = {}
    for contender in contenders:
        if contender.store is Store.NONE:
            continue
        most = contender.most_events
        if most not in topics:
            name = "wallets" if most is None else f"wallets-{most}"
            events = SLOW_EVENTS if most is not None and most <= SLOW else EVENTS
            topics[most] = await servers.topic(name, partitions, events, customers)
        counted.append(await count(servers, contender, topics[most]))
    return counted


async def count(servers: Servers, contender: Contender, topic: Topic) -> Counted:
    """Run the contender once through a proxy that counts."""
    async with servers.database() as url, CountingProxy(url) as proxy:
        connection = await asyncpg.connect(url)
        observer = Observer(connection, contender)
        async with process(servers, contender, topic, proxy.url) as worker:
            await until(lambda: unless_ended(worker, observer.has_begun), f"{contender.label} has begun", START_SECONDS)
            before, first = proxy.counts(), await observer.applied()
            await until_applied(worker, observer, first, topic.events)
            counts = proxy.counts().since(before)
        await connection.close()
    return Counted(contender.name, topic.events - first, counts)
