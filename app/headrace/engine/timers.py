"""Fires the timers of one partition number: what is due becomes emits of a ledger row, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from headrace.engine.batch import Batch, BatchProcessor, Holding
from headrace.engine.effects import Effects
from headrace.engine.trace import trace_timers
from headrace.engine.transact import Portions
from headrace.item import Item
from headrace.ledger.rows import Kind
from headrace.log.ports import StoredRecord
from headrace.timers.changes import Change
from headrace.timers.schedule import Schedule
from headrace.timers.store import FiredTimer, count_fired, follow_schedules, seconds_to_next, take_due

MOST_TIMERS = 1_000
"""Timers in one transaction; the next ones follow after a batch of the log."""


class DueTimers:
    """The timers of one partition number."""

    def __init__(self, processor: BatchProcessor) -> None:
        self._processor = processor
        self._clock = processor.memory.timers
        self._portions = Portions(MOST_TIMERS)
        self._leaving: list[FiredTimer] = []
        """Timers that the latest attempt fires."""

    async def load(self) -> None:
        """Learn when the next timer is due; partition 0 has the schedules. Raises: StateError."""
        processor = self._processor
        group, schedules = processor.subscription.group, processor.subscription.schedules
        async with processor.context.connection() as connection:
            if schedules and processor.partition == 0:
                async with connection.transaction():
                    await follow_schedules(connection, group, 0, schedules)
            self._clock.learn(await seconds_to_next(connection, group, [processor.partition]))

    async def fire(self, holding: Holding) -> bool:
        """Emit the events of the timers that are due, through the claim of `holding`. Returns False if it is not time.

        If so many are too large for one transaction, half of them are tried.
        Raises: StateUnavailableError, FencedError: nothing was fired.
        """
        if self._clock.seconds > 0:
            return False
        batch = Batch(Kind.TIMER, holding, 0, 0, list)
        if await self._portions.transact(self._processor, batch, self._attempt):
            self._count(self._leaving)
        return True

    async def _attempt(self, batch: Batch) -> Effects:
        processor, group = self._processor, self._processor.subscription.group
        schedules = processor.subscription.schedules
        await processor.take_turn(batch)
        effects = Effects(Kind.TIMER, [], batch.next_offset, batch.last)
        async with processor.context.transaction() as connection:
            most_bytes = processor.context.settings.engine.batch_bytes
            fired = await take_due(connection, group, processor.partition, self._portions.most, most_bytes)
            leaving = [timer for timer in fired if timer.schedule is None or timer.schedule in schedules]
            self._leaving = leaving
            effects.timers = [_next(timer, schedules[timer.schedule], batch) for timer in leaving if timer.schedule]
            effects.emits = [(_item(timer, batch), timer.record) for timer in leaving]
            if fired:
                await processor.write(connection, batch, effects)
            seconds = await seconds_to_next(connection, group, [processor.partition])
        if fired:
            processor.remember(batch, effects)
        self._clock.learn(seconds)
        return effects

    def _count(self, fired: Sequence[FiredTimer]) -> None:
        metrics, name = self._processor.context.metrics, self._processor.subscription.name
        count_fired(metrics, name, fired)
        trace_timers(self._processor.context.tracing, name, fired)
        for topic, count in Counter(timer.record.topic for timer in fired).items():
            metrics.emits_committed_total.labels(subscription=name, topic=topic).inc(count)


def _item(timer: FiredTimer, batch: Batch) -> Item:
    """Return what stands for the cause of the emit: no record of the log, since that was when the timer was set."""
    partition, record = batch.holding.claim.partition, timer.record
    return Item(StoredRecord(*partition, batch.next_offset, 0, record.key, record.value, record.headers))


def _next(timer: FiredTimer, schedule: Schedule, batch: Batch) -> tuple[Item, Change]:
    """Return the schedule's next timer: times that have passed meanwhile have come to this one."""
    return _item(timer, batch), schedule.timer(schedule.after(timer.now))
