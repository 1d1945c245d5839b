"""Applies what was fetched from the log, one transaction at a time, in batches that adapt to what they meet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from headrace.engine.batch import FIRING_SECONDS, INLINE_RECORDS, Batch, BatchProcessor, Holding
from headrace.engine.claim import KILLED, Claim, Fingerprint
from headrace.engine.failures import OverdueError
from headrace.engine.report import ShrinkReason
from headrace.engine.sizing import BatchSize
from headrace.engine.transact import PATIENCE, transact
from headrace.errors import BatchTooLargeError, DataRefusedError, DecodeError, HandlerError
from headrace.item import PARKED, Item, Outcome
from headrace.ledger.rows import Kind
from headrace.log.ports import Record

Exclusion = tuple[Outcome, BaseException]
"""How an event ends that is not run, and why."""

_OF_A_RUN = frozenset({Outcome.PROCESS_KILLED, Outcome.HANDLER_ERROR})
"""Of these the event's handler is to blame, if it was called."""


class LogBatches:
    """The batches of one partition number."""

    def __init__(self, processor: BatchProcessor) -> None:
        self._processor = processor
        self._excluded: dict[tuple[str, int], Exclusion] = {}
        """Events, by topic and offset, that are not run again."""
        self._upto: tuple[str, int] | None = None
        """The event, by topic and offset, with which the next batch ends: what ran before it is repeated only once."""
        self._size = BatchSize(processor.context.settings.engine.batch_records, processor.context.pace.target)
        self._refusals = 0

    async def apply(self, holding: Holding, *, is_probe: bool = False) -> None:
        """Apply the next of `holding.pending` in one transaction, or only the first as a probe.

        Raises: StateUnavailableError, SchemaRegistryError, OutageError (nothing was applied; wait, then apply again),
        FencedError.
        """
        claim, topic = holding.claim, holding.claim.partition.topic
        most = self._size.within(max(FIRING_SECONDS, self._processor.memory.timers.seconds))
        records = self._ending(topic, holding.pending[: 1 if is_probe or claim.is_suspect else most])
        first, last = records[0], records[-1]
        if claim.blames_next_event:
            self._excluded[topic, first.offset] = (Outcome.PROCESS_KILLED, HandlerError(KILLED, ""))
        excluded = {offset: how for (of, offset), how in self._excluded.items() if of == topic}

        def decode() -> list[Item]:
            processor = self._processor
            try:
                items = processor.decoder.decode(records, processor.memory.windows[topic].marks)
            except MemoryError as error:
                if len(records) > 1 or first.offset not in excluded:
                    raise
                return [_unreadable(first, error)]
            if excluded:
                _exclude(items, excluded)
            return items

        # A large batch is large whatever its bytes: only those of a small one are counted.
        size = sum([len(record.value or b"") for record in records]) if len(records) <= INLINE_RECORDS else 0
        batch = Batch(Kind.BATCH, holding, len(records), size, decode, last.offset + 1, Fingerprint.of(last), is_probe)
        try:
            async with self._processor.context.company.enter(alone=claim.has_died_here):
                await self._begin_applying(claim)
                started = time.perf_counter()
                effects = await transact(self._processor, batch)
        except OverdueError as error:
            self._give_up(error)
        except DataRefusedError as error:
            self._processor.reporter.rerun("handler", error)
            self._shrink("data", len(records), topic, first.offset, error.__cause__ or error)
        except BatchTooLargeError as error:
            self._processor.reporter.rerun("infrastructure", error)
            self._refusals = self._refusals + 1 if len(records) == 1 else 0
            if len(records) > 1 or self._refusals >= PATIENCE:
                self._shrink(error.reason, len(records), topic, first.offset, error)
            if len(records) == 1:
                raise  # the limit may be somebody else's fault: the caller waits before it tries again
        else:
            self._refusals = 0
            for record in records[: len(effects.items)] if excluded else ():
                self._excluded.pop((topic, record.offset), None)
            holding.pending = holding.pending[len(effects.items) :]
            self._size.took(len(effects.items), time.perf_counter() - started)

    async def _begin_applying(self, claim: Claim) -> None:
        """From the first batch on, the death of this process may be its fault.

        Raises: StateUnavailableError, FencedError.
        """
        if not claim.is_applying:
            async with self._processor.turn(), self._processor.context.connection() as connection:
                await claim.begin_applying(connection)

    async def skip_to(self, holding: Holding, offset: int) -> None:
        """Move the claim over offsets that hold no record (commit markers, aborted or compacted records)."""
        await transact(self._processor, Batch(Kind.BATCH, holding, 0, 0, list, offset, holding.claim.last))

    def _ending(self, topic: str, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records up to the event that was given up on, if there was one."""
        upto, self._upto = self._upto, None
        if upto is None or upto[0] != topic:
            return records
        return [record for record in records if record.offset <= upto[1]] or records

    def _give_up(self, error: OverdueError) -> None:
        """Go on without an event whose handler did not return: its lane runs it, alone."""
        item, topic = error.item, error.item.record.topic
        assert item.key is not None
        self._processor.memory.lanes.set_aside(item.key)
        self._processor.reporter.gave_up(item, error)
        outcome = Outcome.SLOW if error.is_cut else Outcome.HANDLER_ERROR
        self._excluded[topic, item.record.offset] = (outcome, error.failure())
        self._processor.is_careful |= not error.is_cut  # so that it is seen if many keys hang
        self._upto = (topic, item.record.offset)

    def _shrink(self, reason: ShrinkReason, records: int, topic: str, offset: int, error: BaseException) -> None:
        """Take half as many; a single event that is at fault is not run again."""
        limit = self._size.shrink(records)
        self._processor.reporter.shrunk(reason, limit)
        if records == 1:  # refused once more, not even its lane can hold it
            is_again = (topic, offset) in self._excluded
            self._excluded[topic, offset] = (Outcome.GAVE_UP if is_again else Outcome.DATA_REFUSED, error)


def _unreadable(record: Record, error: MemoryError) -> Item:
    item = Item(record)
    item.failed(Outcome.DECODE, DecodeError(f"the process has no memory to read the record: {error}"))
    return item


def _exclude(items: Sequence[Item], excluded: Mapping[int, Exclusion]) -> None:
    """Fail the events, by offset, without a run; what follows a parked one of its key waits behind it."""
    parked: set[str | None] = set()
    for item in items:
        if item.outcome is not Outcome.READY:
            continue
        if item.record.offset in excluded:
            outcome, error = excluded[item.record.offset]
            if outcome in _OF_A_RUN:
                item.blame(outcome, error)
            else:
                item.failed(outcome, error)
            if item.outcome in PARKED:
                parked.add(item.key)
        elif item.key in parked:
            item.outcome = Outcome.BEHIND_KEY
