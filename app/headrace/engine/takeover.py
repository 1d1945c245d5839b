"""How a tenure takes over the partitions of one number: it claims them, and learns what their former owner knew.

```
enroll, if they are new ─▶ wait for the former owner ─▶ claim ─▶ window, lanes ─▶ does the log continue here?
  ─▶ publish unmarked emits
```
A takeover that fails halfway has taken some of the claims: their holdings are there to be closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from headrace.database.pool import Connection
from headrace.emits.relay import Relay
from headrace.engine.batch import BatchProcessor, Holding
from headrace.engine.claim import claim, enroll, known_partitions
from headrace.engine.continuity import check_bounds, check_log, check_partitions, resume_at
from headrace.engine.handover import wait_for_the_former_owner
from headrace.ledger.window import PackedRows, read_window, window_of
from headrace.log.ports import Bounds, TopicInfo, TopicPartition
from headrace.sagas.store import check_steps

CAUTIOUS_SECONDS = 60.0
"""For this long after the previous owner died, retry one parked event at a time, so that an event that ends the
process costs only its own lane an attempt."""


class Taken(NamedTuple):
    """What a takeover has found, beside the holdings and the memory. Seconds are of the monotonic clock."""

    positions: dict[TopicPartition, int]
    """Where to read from."""
    claimed_at: float
    cautious_until: float
    """Until then a parked event may be the one that ended the previous owner; 0 if that did not die."""


class Takeover:
    """One takeover of the partitions of one number, one for each topic of a subscription."""

    def __init__(
        self,
        processor: BatchProcessor,
        partitions: Sequence[TopicPartition],
        holdings: dict[str, Holding],
        touch: Callable[[], None],
    ) -> None:
        """`holdings`: by topic, gets each partition as soon as it is claimed."""
        self._processor = processor
        self._context = processor.context
        self._subscription = processor.subscription
        self._partitions = partitions
        self._holdings = holdings
        self._touch = touch

    async def take(self) -> Taken:
        """Claim, load what the previous owner knew, and publish what it may have left unpublished.

        Raises: LogMismatchError (the log is not the one of the claim), StepRemovedError (the sagas are others),
        TransportError, StateError.
        """
        context, group, number = self._context, self._subscription.group, self._processor.partition
        memory = self._processor.memory
        infos = await context.log.topics(self._subscription.topics)
        bounds = await context.log.bounds(self._partitions)
        self._processor.reporter.partition_count = min(info.partitions for info in infos.values())
        self._touch()
        for info in infos.values():
            await self._enroll(info)
        if context.settings.is_kafka:  # no other process can hold the claims of another log
            await wait_for_the_former_owner(context, self._subscription, number, self._touch)
        packed: dict[str, PackedRows] = {}
        async with context.connection() as connection:
            for partition in self._partitions:
                holding = await self._claim(connection, partition, infos[partition.topic], bounds[partition])
                self._holdings[partition.topic] = holding
                limit = context.settings.engine.dedupe_window_ids
                packed[partition.topic] = await read_window(connection, group, partition, holding.claim.sequence, limit)
                self._touch()
            claimed_at = time.monotonic()
            is_orphaned = any(holding.claim.is_orphaned for holding in self._holdings.values())
            await memory.lanes.load(connection, group, number)
            if (saga := context.registry.sagas.get(self._subscription.name)) is not None:
                await check_steps(connection, group, number, saga.course)
        for topic, rows in packed.items():
            fill = partial(window_of, rows, context.settings.engine.dedupe_window_ids)
            memory.windows[topic] = await self._processor.off_loop(fill, large=True)
        cautious_until = time.monotonic() + CAUTIOUS_SECONDS if is_orphaned else 0.0
        bounds = await self._check_bounds(bounds)
        for holding in self._holdings.values():
            await holding.relay.publish_unmarked()
            self._touch()
        positions = {p: resume_at(self._holdings[p.topic].claim, bounds[p]) for p in self._partitions}
        return Taken(positions, claimed_at, cautious_until)

    async def _enroll(self, info: TopicInfo) -> None:
        """Make the claims' rows if the subscription never read the topic.

        No connection is held while the log is asked: the embedded log needs one of the same pool.
        """
        async with self._context.connection() as connection:
            known, _ = await known_partitions(connection, self._subscription.group, info.topic)
        if known:
            return
        first_offsets = await self._first_offsets(info)
        async with self._context.connection() as connection:
            await enroll(connection, self._subscription.group, info, first_offsets)

    async def _first_offsets(self, info: TopicInfo) -> dict[int, int]:
        """Return the first offset of each partition of a topic that the subscription never read.

        All of them have to answer: one without a row would be taken for one that was added later.
        Raises: TransportError.
        """
        partitions = [TopicPartition(info.topic, number) for number in range(info.partitions)]
        bounds = await self._context.log.bounds(partitions)
        is_latest = self._subscription.start == "latest"
        return {p.partition: bounds[p].end if is_latest else bounds[p].begin for p in partitions}

    async def _claim(
        self, connection: Connection, partition: TopicPartition, info: TopicInfo, bounds: Bounds
    ) -> Holding:
        context, group = self._context, self._subscription.group
        known, _ = await known_partitions(connection, group, partition.topic)
        check_partitions(group, partition.partition, info, known)
        held = await claim(
            connection,
            group,
            partition,
            context.owner,
            info=info,
            log_end=bounds.end,
            suspect_records=context.settings.engine.batch_records,
        )
        check_log(held, info)
        relay = Relay(
            context.log,
            context.metrics,
            context.tracing,
            self._subscription,
            partition,
            held.emitted_through,
            context.connection,
        )
        return Holding(held, relay)

    async def _check_bounds(self, bounds: dict[TopicPartition, Bounds]) -> dict[TopicPartition, Bounds]:
        """Compare the claims with the log; ask again first, since the previous owner may have read on meanwhile."""
        claims = [holding.claim for holding in self._holdings.values()]
        if any(held.next_offset > bounds[held.partition].end for held in claims):
            bounds = await self._context.log.bounds(self._partitions)
        for held in claims:
            check_bounds(held, bounds[held.partition])
        return bounds
