"""One step: sends what is due when it is due, and never waits for an answer before the next send.

A send that waits for a free connection is late through the target, and its wait counts. A send that *begins* late is
late through this process: it counts, too, from when it was due, and is reported.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from headrace.load.latency import Latencies
from headrace.load.sender import Outcome, Sender
from headrace.load.workload import Expected, Made

LATE_SECONDS = 0.010
"""A timer of the event loop is up to 1 ms late by itself; 10 ms is what a busy generator looks like."""
LEAD_SECONDS = 0.05
MOST_IN_FLIGHT = 20_000
"""Sends without an answer; when so many wait, the step ends: the target is far past its knee."""
MOST_RETRIES = 5
LONGEST_RETRY_SECONDS = 60.0
"""A send that is to be repeated later than this counts as what it was answered, so that a step has an end."""
LONGEST_SLEEP_SECONDS = 0.25
"""In which a halted step notices it, however far away the next send is."""

Make = Callable[[int], list[Made]]


class Pacing:
    """The sends of one step, and what became of them so far."""

    def __init__(
        self, sender: Sender, make: Make, expected: Expected, batch: int, *, honours_retry_after: bool = False
    ) -> None:
        self._sender = sender
        self._make = make
        self._expected = expected
        self._batch = batch
        self._honours_retry_after = honours_retry_after
        self._running: set[asyncio.Task[None]] = set()
        self._halted = asyncio.Event()
        self.latencies = Latencies()
        self.statuses: Counter[str] = Counter()
        self.doubtful: list[Made] = []
        """Events whose outcome is unknown."""
        self.details: dict[str, str] = {}
        """What a status said, the first time."""
        self.sends = self.late_sends = self.sent = self.unsent = 0
        self.accepted = self.refused = self.retry_after = self.retried = 0
        self.accepted_in_time = 0
        """Events that were accepted before the last send was due: the rest were behind."""

    @property
    def in_flight(self) -> int:
        """Sends that wait for an answer."""
        return len(self._running)

    def halt(self) -> None:
        """Send nothing more; what was sent is waited for."""
        self._halted.set()

    async def run(self, due_times: array[float]) -> None:
        """Send on schedule; returns once every send has its outcome."""
        begin = time.perf_counter() + LEAD_SECONDS
        self._end = begin + due_times[-1]
        next_send, count = 0, len(due_times)
        while next_send < count and not self._halted.is_set():
            now = time.perf_counter() - begin
            while next_send < count and due_times[next_send] <= now and len(self._running) < MOST_IN_FLIGHT:
                self._start(begin + due_times[next_send], now - due_times[next_send])
                next_send += 1
            if len(self._running) >= MOST_IN_FLIGHT:
                break
            wait = due_times[next_send] - (time.perf_counter() - begin) if next_send < count else 0
            await asyncio.sleep(min(max(0.0, wait), LONGEST_SLEEP_SECONDS))
        self.unsent = (count - next_send) * self._batch
        while self._running:
            await asyncio.wait(self._running)

    def _start(self, due: float, late_seconds: float) -> None:
        self.sends += 1
        self.late_sends += late_seconds > LATE_SECONDS
        events = self._make(self._batch)
        self.sent += len(events)
        task = asyncio.create_task(self._send(events, due))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _send(self, events: Sequence[Made], due: float) -> None:
        outcome = await self._sender.send(events)
        is_in_doubt = outcome.is_in_doubt
        for _ in range(MOST_RETRIES if self._honours_retry_after else 0):
            if outcome.is_accepted or not await self._has_waited(outcome.retry_after_seconds):
                break
            self._count(outcome, 0)
            outcome = await self._sender.send(events)
            is_in_doubt |= outcome.is_in_doubt  # what the log was given once it may take later
        self._count(outcome, len(events))
        if outcome.is_accepted:
            now = time.perf_counter()
            self.latencies.add(now - due)
            self.accepted += len(events)
            self.accepted_in_time += len(events) if now <= self._end else 0
            self._expected.accept(events)
        elif is_in_doubt:
            self.doubtful += events
        else:
            self.refused += len(events)

    async def _has_waited(self, seconds: float | None) -> bool:
        """Wait as long as an answer says; return False if it does not say so, says too long, or the step is halted."""
        if seconds is None or seconds > LONGEST_RETRY_SECONDS or self._halted.is_set():
            return False
        self.retried += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(self._halted.wait(), seconds)
        return not self._halted.is_set()

    def _count(self, outcome: Outcome, events: int) -> None:
        self.statuses[outcome.status] += events
        self.retry_after += outcome.retry_after_seconds is not None
        if not outcome.is_accepted:
            self.details.setdefault(outcome.status, outcome.detail)
