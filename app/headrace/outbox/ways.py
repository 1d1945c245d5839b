"""Where the events of the outbox go: for each partition of the log, whether it may be sent to now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from headrace.backoff import Backoff
from headrace.log.partitioner import partition_for
from headrace.log.ports import Log, TopicPartition


class Way:
    """The way to one partition of the log: one publish at a time, and a pause after a failure."""

    def __init__(self) -> None:
        self._backoff = Backoff(0.1, 10.0)
        self._resumes_at = 0.0
        self.is_busy = False

    @property
    def is_in_trouble(self) -> bool:
        """True since the last publish failed."""
        return self._backoff.failures > 0

    @property
    def is_open(self) -> bool:
        """True if events may be sent now."""
        return not self.is_busy and asyncio.get_running_loop().time() >= self._resumes_at

    def failed(self) -> float:
        """Note a failure; return the seconds of the pause."""
        seconds = self._backoff.next_seconds()
        self._resumes_at = asyncio.get_running_loop().time() + seconds
        return seconds

    def succeeded(self) -> None:
        """Note that the partition takes events."""
        self._backoff.reset()
        self._resumes_at = 0.0


class Ways:
    """All ways, by partition. A topic that does not exist is one way of its own, which fails until it is created."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._partitions: dict[str, int | None] = {}
        """By topic; None: it did not exist when the log was asked."""
        self._ways: dict[TopicPartition, Way] = {}

    async def learn(self, topics: Iterable[str]) -> None:
        """Ask the log for the partitions of the topics that are not known yet. Raises: TransportError."""
        if unknown := set(topics) - self._partitions.keys():
            found = await self._log.topics(sorted(unknown))
            self._partitions |= {topic: found[topic].partitions if topic in found else None for topic in unknown}

    def unknown(self, rows: Iterable[Any]) -> set[str]:
        """Return the topics of the rows that have not been asked for."""
        return {row["topic"] for row in rows} - self._partitions.keys()

    def sort(self, rows: Iterable[Any]) -> dict[TopicPartition, list[Any]]:
        """Return the rows by partition, in their order."""
        sorted_rows: dict[TopicPartition, list[Any]] = {}
        for row in rows:
            partitions = self._partitions.get(row["topic"])
            number = -1 if partitions is None else partition_for(row["key"] or b"", partitions)
            sorted_rows.setdefault(TopicPartition(row["topic"], number), []).append(row)
        return sorted_rows

    def forget(self, topic: str) -> None:
        """Ask the log again for the topic's partitions: it may have been created, or have grown."""
        self._partitions.pop(topic, None)

    def to(self, partition: TopicPartition) -> Way:
        """Return the way to a partition."""
        return self._ways.setdefault(partition, Way())
