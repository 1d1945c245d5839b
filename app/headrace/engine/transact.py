"""Applies one batch: attempts it, and answers each way in which an attempt can fail.

| an attempt failed since | the answer |
| --- | --- |
| a handler raised | undo, attempt again with care: the failing event is taken out alone |
| a handler did not return | undo and raise: the caller goes on without the event |
| another owner wrote one of the states | undo, read the states again, attempt again |
| the connection was lost while committing | ask the claim whether the batch is committed |
| Postgres is away, or asks to try again | undo and raise: the caller waits, and sees a stop or a pause meanwhile |
| Postgres timed out, or ran out of memory | undo and raise: the caller takes fewer events |
| Postgres refused the data | undo and raise: the caller looks for the event that is at fault |
| a handler meets an outage | undo and raise: the caller waits for the breaker |
| the schema registry is away | raise: the caller waits, and sees a stop or a pause meanwhile |
| another owner holds the claim | raise: the caller stops at once |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from headrace.backoff import Backoff
from headrace.engine.batch import Batch, BatchProcessor
from headrace.engine.effects import Effects
from headrace.engine.failures import HandlerFailedError
from headrace.engine.trace import trace_fenced
from headrace.errors import (
    BatchTooLargeError,
    ConflictError,
    DataRefusedError,
    FencedError,
    StateUnavailableError,
)

CONFLICT_SECONDS = 0.005

PATIENCE = 3
"""After this many consecutive failures while Postgres answers, blame the handlers' SQL instead of the database."""

Attempt = Callable[[Batch], Awaitable[Effects]]


async def transact(processor: BatchProcessor, batch: Batch, attempt: Attempt | None = None) -> Effects:
    """Apply the batch in one transaction and return what was committed.

    The turn is kept until it is known what became of the batch: nothing else writes meanwhile.
    Cancel: safe; the batch is committed or not, and the next claim tells.
    Raises: OverdueError, DataRefusedError, BatchTooLargeError, StateUnavailableError, SchemaRegistryError,
    FencedError: nothing was committed.
    """
    attempt = attempt or processor.attempt
    while True:
        try:
            effects = await attempt(batch)
        except HandlerFailedError as error:
            processor.undo(batch)
            processor.is_careful = True
            processor.reporter.rerun("handler", error, error.item)
            continue
        except ConflictError as error:
            processor.undo(batch)
            processor.reporter.rerun("conflict", error)
            await asyncio.sleep(CONFLICT_SECONDS)
            continue
        except MemoryError as error:
            processor.undo(batch)
            raise BatchTooLargeError("the process has no memory for the batch.", reason="memory") from error
        except BatchTooLargeError:
            processor.undo(batch)
            raise
        except StateUnavailableError as error:
            if not (batch.effects is not None and await _was_committed(processor, batch)):
                processor.undo(batch)
                processor.reporter.rerun("infrastructure", error)
                await _blame_sql(processor, error)
                raise
            effects = batch.effects
            processor.remember(batch, effects)
        except BaseException as error:
            if isinstance(error, FencedError) and batch.run is not None:
                _trace_fenced(processor, batch)
            processor.undo(batch)
            raise
        finally:
            processor.end_turn()
        processor.failures = 0
        return effects


class Portions:
    """Transactions that take a part of what waits: half as much after one that was refused or too large.

    A success takes the limit back to twice as much, up to where it began.
    """

    def __init__(self, most: int) -> None:
        self._longest = most
        self.most = most
        """How many rows the next one takes."""

    async def transact(self, processor: BatchProcessor, batch: Batch, attempt: Attempt) -> bool:
        """Apply one. Returns False if it was too large: nothing was applied, and the next one takes less.

        Only behind a True may the caller forget what the latest attempt took: an attempt that fails may be committed.
        Raises: as `transact`, but DataRefusedError and BatchTooLargeError for a single row only.
        """
        try:
            await transact(processor, batch, attempt)
        except (DataRefusedError, BatchTooLargeError):
            if self.most == 1:
                raise
            self.most //= 2
            return False
        self.most = min(self._longest, self.most * 2)
        return True


async def _was_committed(processor: BatchProcessor, batch: Batch) -> bool:
    """Ask the claim what became of a batch whose connection was lost while committing; wait until Postgres answers."""
    claim, backoff = batch.holding.claim, Backoff(0.1, 5.0)
    while True:
        try:
            async with processor.context.transaction() as connection:
                committed = await claim.was_committed(connection, batch.sequence)
        except StateUnavailableError as error:
            processor.reporter.waiting(error)
            await asyncio.sleep(backoff.next_seconds())
            continue
        if not committed:
            claim.renewed()
        processor.reporter.resolved(committed)
        return committed


async def _blame_sql(processor: BatchProcessor, error: StateUnavailableError) -> None:
    """Raise DataRefusedError if Postgres answers and yet the handlers' own SQL has failed too often in a row."""
    if not processor.wants_transaction:
        return
    async with processor.context.connection() as connection:
        await connection.execute("select 1")
    processor.failures += 1
    if processor.failures >= PATIENCE:
        processor.failures = 0
        raise DataRefusedError(f"the transaction failed {PATIENCE} times: {error}") from error


def _trace_fenced(processor: BatchProcessor, batch: Batch) -> None:
    assert batch.run is not None
    tracing, claim = processor.context.tracing, batch.holding.claim
    trace_fenced(tracing, claim, batch.run.items, batch.started_ns, time.time_ns())
