"""Applies the log to a new table: every event that the projection has applied, once, in the order of each partition."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from headrace import sql
from headrace.database.pool import Connection
from headrace.emits.emitter import Emitter
from headrace.engine.batch import emitter_of
from headrace.engine.decode import BatchDecoder, decoded
from headrace.engine.invoke import call_handler
from headrace.errors import HandlerError
from headrace.handlers.verdicts import Skip
from headrace.item import Item, Outcome
from headrace.ledger.window import DedupeWindow
from headrace.log.ports import Log, Record, StoredRecord, TopicPartition, position_of
from headrace.projections.projection import Projection
from headrace.rebuild.reading import LogReading, Positions
from headrace.registry import Registry
from headrace.settings import Settings


class Letters:
    """What became of the events that the subscription has given up on."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._skipped: set[tuple[str, int, int]] = set()
        self._edited: dict[tuple[str, int, int], bytes] = {}
        for row in rows:
            place = row["topic"], row["partition"], row["offset"]
            self._skipped.discard(place)  # a later letter of the same record tells what came of its replay
            if not row["is_replayed"]:
                self._skipped.add(place)
            elif row["edited_value"] is not None:
                self._edited[place] = row["edited_value"]

    def applied(self, record: Record) -> Record | None:
        """Return the record as it was applied; None if it was not."""
        place = position_of(record)
        if place in self._skipped:
            return None
        value = self._edited.get(place)
        if value is None:
            return record
        return StoredRecord(*place, record.timestamp, record.key, value, record.headers)


class Replay:
    """The handlers of one projection over its part of the log."""

    def __init__(self, registry: Registry, projection: Projection, log: Log, settings: Settings) -> None:
        self._projection = projection
        self._log = log
        self._decoder = BatchDecoder(projection, registry.types, registry.decoders)
        self._emitter: Emitter = emitter_of(registry, projection, settings.kafka.max_record_bytes)
        self._window_ids = settings.engine.dedupe_window_ids
        self._windows: dict[TopicPartition, DedupeWindow] = {}
        self._reading: LogReading | None = None
        self.letters = Letters(())
        self.events = 0
        """Events that were applied."""

    async def start(self, connection: Connection, positions: Mapping[TopicPartition, int]) -> None:
        """Begin at the positions. Raises: TransportError."""
        self.letters = Letters(await connection.fetch(sql.dead_letter.PLACES, self._projection.group))
        self._windows = {partition: DedupeWindow(self._window_ids) for partition in positions}
        self._reading = await LogReading.start(self._log, positions)

    async def close(self) -> None:
        """Let the log go."""
        if self._reading is not None:
            await self._reading.close()

    @property
    def positions(self) -> Positions:
        """The next offset of each partition."""
        return self._begun.positions

    def behind(self, targets: Positions) -> int:
        """Return how many offsets are missing to the targets."""
        return self._begun.behind(targets)

    @property
    def _begun(self) -> LogReading:
        assert self._reading is not None
        return self._reading

    async def step(self, connection: Connection, table: str, targets: Positions) -> None:
        """Apply some of what is before the targets, in the connection's transaction or one of its own.

        Raises: HandlerError (a handler raised), TransportError (the log is away).
        """
        async with connection.transaction():
            for partition, records in (await self._begun.take(targets)).items():
                await self._apply(partition, records)
                await self.write(connection, table)

    async def _apply(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        window = self._windows[partition]
        applied = [each for record in records if (each := self.letters.applied(record)) is not None]

        async def decode() -> list[Item]:
            return self._decoder.decode(applied, window.marks)

        items = await decoded(decode)
        fresh = [item for item in items if item.outcome is Outcome.READY]
        for item in fresh:
            self.handle(item, f"{partition.topic}/{partition.partition}/{item.record.offset}")
        window.add([item.identity for item in fresh], [item.mark for item in fresh], time.time())
        self.events += len(fresh)

    def handle(self, item: Item, where: str) -> None:
        """Call the item's handler. Raises: HandlerError, which says where the event is."""
        handler, emitter = item.handler, self._emitter
        assert handler is not None
        emitter.cause = item
        try:
            call_handler(item, handler, (), emitter)
        except Skip:
            emitter.undo()
        except Exception as error:
            raise HandlerError(
                f"{handler.name} raised {type(error).__name__} at {where}: {error}; nothing was changed. Mend it, or "
                f"make the event a dead letter of {self._projection.name!r}.",
                handler.name,
            ) from error

    async def write(self, connection: Connection, table: str) -> None:
        """Write what the handlers did, in the connection's transaction."""
        assert self._emitter.table is not None
        await self._emitter.table.write(connection, table)
