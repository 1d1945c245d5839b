"""Where a stream of events stands: the ids that it sends, and where a reader that comes back continues.

An id is the event's own position, then the next offset of every partition of the stream, so that a reader which lost
its connection between any two events misses none and gets none twice:
```
wallets/2/17;alerts:3,0,0;wallets:15,7,18      topic/partition/offset;topic:next offset of partition 0,1,2;...
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from headrace.log.ports import Bounds, Record, TopicPartition

MAX_OFFSET = 2**63 - 1


class Gap(NamedTuple):
    """Records of a partition that the log no longer has: `first` <= offset < `end`."""

    partition: TopicPartition
    first: int
    end: int


class Start(NamedTuple):
    """Where a stream begins, and what it cannot send any more."""

    positions: dict[TopicPartition, int]
    gaps: list[Gap]


class Positions:
    """The next offsets of a stream, as the text of ids."""

    def __init__(self, positions: Mapping[TopicPartition, int]) -> None:
        """Begin at the positions: all partitions of each topic."""
        counts: dict[str, int] = {}
        for partition in positions:
            counts[partition.topic] = max(counts.get(partition.topic, 0), partition.partition + 1)
        self._offsets = {topic: [0] * count for topic, count in sorted(counts.items())}
        self._quoted = {topic: quote(topic, safe="") for topic in counts}
        for partition, offset in positions.items():
            self.move(partition, offset)

    def move(self, partition: TopicPartition, offset: int) -> None:
        """Follow what was sent: the partition continues at the offset."""
        self._offsets[partition.topic][partition.partition] = offset

    def id_of(self, record: Record) -> str:
        """Return the id of a record, and follow it: the next id says that it was sent."""
        self.move(TopicPartition(record.topic, record.partition), record.offset + 1)
        parts = [f"{self._quoted[record.topic]}/{record.partition}/{record.offset}"]
        parts += [f"{self._quoted[topic]}:{','.join(map(str, each))}" for topic, each in self._offsets.items()]
        return ";".join(parts)


def parse_id(text: str) -> dict[TopicPartition, int]:
    """Return the next offset of each partition that an id names; without the others' it names one.

    Raises: ValueError (no stream sends such an id).
    """
    own, *others = text.split(";")
    topic, number, offset = own.rsplit("/", 2)
    found = {TopicPartition(unquote(topic), _number(number)): _number(offset) + 1}
    for other in others:
        topic, offsets = other.split(":")
        found |= {
            TopicPartition(unquote(topic), partition): _number(each)
            for partition, each in enumerate(offsets.split(","))
        }
    return found


def start_at(bounds: Mapping[TopicPartition, Bounds], seen: Mapping[TopicPartition, int]) -> Start:
    """Return where to begin: after what was seen, and at the log's end if nothing of the topic was seen.

    A partition that is newer than the id is read from its beginning, if the id held more than one position.
    """
    seen_topics = {partition.topic for partition in seen} if len(seen) > 1 else set()
    start = Start({}, [])
    for partition, held in bounds.items():
        wanted = seen.get(partition, held.begin if partition.topic in seen_topics else held.end)
        start.positions[partition] = max(held.begin, min(wanted, held.end))
        if wanted < held.begin:
            start.gaps.append(Gap(partition, wanted, held.begin))
    return start


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 19 else -1
    if not 0 <= number <= MAX_OFFSET:
        raise ValueError(text)
    return number
