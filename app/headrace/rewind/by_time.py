"""Reads the partitions of one number together, in the order of the times that the log has for their records."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from headrace.log.ports import Record, TopicPartition
from headrace.rebuild.reading import LogReading

Run = tuple[TopicPartition, list[Record]]
"""Records of one partition that follow each other."""


class ByTime:
    """Some partitions of the log: those of several topics that have one number are merged, others are independent.

    A partition keeps its own order, whatever its times are.
    """

    def __init__(self, reading: LogReading) -> None:
        self._reading = reading
        self._waiting: dict[TopicPartition, deque[Record]] = {place: deque() for place in reading.positions}

    async def take(self, targets: Mapping[TopicPartition, int]) -> list[Run]:
        """Return records before the targets; none if all are taken. Raises: TransportError."""
        while True:
            starved = {place: target for place, target in targets.items() if self._is_starved(place, target)}
            if starved:
                for place, records in (await self._reading.take(starved)).items():
                    self._waiting[place].extend(records)
            taken = [
                run for number in sorted({place.partition for place in targets}) for run in self._of(number, targets)
            ]
            if taken or not starved:
                return taken

    def _of(self, number: int, targets: Mapping[TopicPartition, int]) -> list[Run]:
        """Take what is certain to come next: until a partition of the number is empty that has more in the log."""
        places = sorted(place for place in targets if place.partition == number)
        runs: list[Run] = []
        while not any(self._is_starved(place, targets[place]) for place in places):
            heads = [(self._waiting[place][0].timestamp, place) for place in places if self._waiting[place]]
            if not heads:
                break
            place = min(heads)[1]
            if len(heads) == 1:
                records = list(self._waiting[place])
                self._waiting[place].clear()
            else:
                records = [self._waiting[place].popleft()]
            if runs and runs[-1][0] == place:
                runs[-1][1].extend(records)
            else:
                runs.append((place, records))
        return runs

    def _is_starved(self, place: TopicPartition, target: int) -> bool:
        return not self._waiting[place] and self._reading.positions[place] < target
