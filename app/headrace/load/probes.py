"""Events with keys of their own, whose state is read until it is there: the visible effect, from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from headrace.load.http_client import NoAnswerError
from headrace.load.latency import Latencies
from headrace.load.sender import Sender
from headrace.load.target import Target
from headrace.load.workload import Expected, Made

FIRST_READ_SECONDS = 0.002
LONGER = 1.15
"""Each wait for the next read is longer than the one before, so that a reading is wrong by 15 % at most (or 2 ms)."""
LONGEST_READ_SECONDS = 1.0


class Probes:
    """The probes of one step; each is an event like the others, and counts among the expected ones."""

    def __init__(
        self,
        sender: Sender,
        target: Target,
        make: Callable[[], Made],
        path_of: Callable[[str], str],
        expected: Expected,
        give_up_seconds: float,
    ) -> None:
        self._sender = sender
        self._target = target
        self._make = make
        self._path_of = path_of
        self._expected = expected
        self._give_up_seconds = give_up_seconds
        self.latencies = Latencies()
        self.doubtful: list[Made] = []
        self.sent = 0

    async def run(self, due_times: Sequence[float], halted: asyncio.Event) -> None:
        """Send them on schedule; returns when each was seen or given up on."""
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for due in due_times:
                with suppress(TimeoutError):
                    await asyncio.wait_for(halted.wait(), max(0.0, begin + due - time.perf_counter()))
                if halted.is_set():
                    break
                group.create_task(self._probe(begin + due))

    async def _probe(self, due: float) -> None:
        event = self._make()
        self.sent += 1
        outcome = await self._sender.send([event])
        if not outcome.is_accepted:
            self.doubtful += [event] if outcome.is_in_doubt else []
            return
        self._expected.accept([event])
        path, wait = self._path_of(event.key), FIRST_READ_SECONDS
        while time.perf_counter() - due < self._give_up_seconds and not await self._is_there(path):
            await asyncio.sleep(wait)
            wait = min(LONGEST_READ_SECONDS, wait * LONGER)
        self.latencies.add(time.perf_counter() - due)  # also of one that is given up on, or the slowest were left out

    async def _is_there(self, path: str) -> bool:
        try:
            return await self._target.state(path) is not None
        except NoAnswerError:
            return False
