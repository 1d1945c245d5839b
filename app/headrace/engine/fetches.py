"""The fetch of a tenure: at most one is under way, and it outlives a wait that something else ends."""

from __future__ import annotations

import asyncio

from headrace.errors import TransportError
from headrace.log.ports import Reader, Record, TopicPartition
from headrace.stopping import CANCEL_SECONDS, end_tasks


class Fetches:
    """At most one fetch under way: it outlives a wait that something else ends."""

    def __init__(self, reader: Reader, max_records: int, max_bytes: int) -> None:
        self._reader = reader
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._task: asyncio.Task[dict[TopicPartition, list[Record]]] | None = None

    async def wait(self, seconds: float, stopped: asyncio.Task[bool]) -> dict[TopicPartition, list[Record]] | None:
        """Return what was fetched, empty when nothing came in time; None when the stop came first."""
        if self._task is None:
            fetch = self._reader.fetch(self._max_records, self._max_bytes, seconds)
            self._task = asyncio.create_task(fetch)
        await asyncio.wait({self._task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not self._task.done():
            return None
        task, self._task = self._task, None
        if task.cancelled():
            raise TransportError("the log's client cancelled its own fetch; a new client reads on.")
        return task.result()

    async def stop(self) -> None:
        """Cancel the fetch under way; the reader is of no use afterwards. A fetch that does not end is left behind."""
        task, self._task = self._task, None
        if task is None:
            return
        await end_tasks({task}, CANCEL_SECONDS)
        if task.done() and not task.cancelled():
            task.exception()  # it was of no interest any more
