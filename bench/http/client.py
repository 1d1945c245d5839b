"""A client that costs little: connections that each have one request under way, closed or open loop.

Open loop: when each request should leave is fixed before, and its latency counts from then on. A request that finds no
idle connection opens one; beyond `MOST_CONNECTIONS` it waits, and its waiting counts. Half of them are open before:
opening all at once takes the client half a second, in which it would measure itself.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

from tests.support.waiting import until

HOST = "127.0.0.1"
MOST_CONNECTIONS = 1_900
"""Below what a server takes (`HEADRACE_INGEST_MAX_CONNECTIONS`)."""
IDLE_SECONDS = 4.0
"""A server ends connections that are idle for five; a request that met that would be lost."""
LOOK_SECONDS = 0.1
"""How often closed connections are looked for, if there are no more to be opened."""
REFUSALS = ("429", "503")
LEFT_SECONDS = 15.0
"""How long answers are waited for when all is sent."""
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass
class Answers:
    """What came back."""

    until: float = 0.0
    """What is accepted later does not count as goodput."""
    seconds: float = 0.0
    in_time: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """Of requests that should have left in these seconds: by status, or `broken`, `unanswered`."""
    accepted: list[float] = field(default_factory=list)
    """Seconds of those that were answered 202."""
    lateness: list[float] = field(default_factory=list)
    """Seconds by which requests left later than they should; much of it, and the client is the bottleneck."""
    without_hint: int = 0
    """Refusals without `Retry-After`."""
    read: dict[bytes, str] = field(default_factory=dict)
    """Whole answers whose bytes came before, such as a refusal, and their statuses: they cost the client little."""

    @property
    def accepted_per_second(self) -> float:
        """Requests that were answered 202 while others were sent."""
        return self.in_time / self.seconds


def milliseconds(seconds: Sequence[float], percentile: float) -> float:
    """Return a percentile; 0 of nothing."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percentile / 100))] * 1e3 if ordered else 0.0


class Connection(asyncio.Protocol):
    """One connection; at most one request is under way."""

    def __init__(self, idle: Callable[[Connection], None], answers: Answers) -> None:
        self._idle, self._answers = idle, answers
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._since: float | None = None
        self._idle_since = perf_counter()
        self.is_open = False

    @property
    def is_busy(self) -> bool:
        """True while a request is under way."""
        return self._since is not None

    def is_usable(self, now: float) -> bool:
        """False once it is closed, or so long idle that the server is about to close it."""
        return self.is_open and now - self._idle_since < IDLE_SECONDS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport, self.is_open = cast("asyncio.Transport", transport), True  # uvloop's is no subclass

    def send(self, request: bytes, since: float) -> None:
        """Send a request whose time was `since`."""
        assert self._transport is not None
        self._since, self._data = since, b""
        self._transport.write(request)
        self._answers.lateness.append(perf_counter() - since)

    def data_received(self, data: bytes) -> None:
        """Read on; an answer that is complete makes the connection idle."""
        known = self._answers.read.get(data)
        if known and not self._data:
            self._note(known)
            self._idle(self)
            return
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if found else None
        if length is None or len(body) < int(length[1]):
            return
        status, names = head[9:12].decode(), head.lower()
        self._note(status)
        has_hint = b"retry-after" in names
        if status in REFUSALS and not has_hint:
            self._answers.without_hint += 1
        if b"connection: close" not in names:
            if status in REFUSALS and has_hint and data == self._data:
                self._answers.read[data] = status
            self._idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """A request that was under way is broken."""
        self.is_open = False
        self._note("broken")

    def close(self) -> None:
        """End it."""
        self._note("unanswered")
        if self._transport is not None:
            self._transport.abort()

    def _note(self, status: str) -> None:
        if self._since is None:
            return
        self._answers.statuses[status] += 1
        if status == "202":
            now = perf_counter()
            self._answers.in_time += now <= self._answers.until
            self._answers.accepted.append(now - self._since)
        self._since, self._idle_since = None, perf_counter()


async def closed(port: int, request: Callable[[], bytes], connections: int, seconds: float) -> Answers:
    """Send as fast as answers come, with so many requests under way."""
    end = perf_counter() + seconds
    answers = Answers(end, seconds)

    def again(connection: Connection) -> None:
        now = perf_counter()
        if now < end:
            connection.send(request(), now)

    made = [await _connect(port, again, answers) for _ in range(connections)]
    for each in made:
        again(each)
    await asyncio.sleep(end - perf_counter())
    for each in made:
        each.close()
    return answers


async def open_loop(port: int, request: Callable[[], bytes], rate: float, seconds: float) -> Answers:
    """Send `rate` requests a second, whatever the answers are."""
    answers, idle, made = Answers(), deque[Connection](), set[Connection]()
    chance = random.Random(round(rate))
    opening = set[asyncio.Task[None]]()
    waiting = deque[float]()

    def free(connection: Connection) -> None:
        if waiting:
            connection.send(request(), waiting.popleft())
        else:
            idle.append(connection)

    async def open_one(since: float) -> None:
        try:
            connection = await _connect(port, free, answers)
        except OSError:
            answers.statuses["broken"] += 1
            return
        made.add(connection)
        connection.send(request(), since)

    made.update([await _connect(port, free, answers) for _ in range(MOST_CONNECTIONS // 2)])
    idle.extend(made)
    begin, due, looked_at = perf_counter(), 0.0, 0.0
    answers.until, answers.seconds = begin + seconds, seconds
    while due < seconds:
        now = perf_counter() - begin
        if len(made) >= MOST_CONNECTIONS and now - looked_at > LOOK_SECONDS:
            looked_at, made = now, {each for each in made if each.is_open}
        while due <= now and due < seconds:
            while idle and not idle[-1].is_usable(begin + now):
                gone = idle.pop()
                gone.close()
                made.discard(gone)
            if idle:
                idle.pop().send(request(), begin + due)
            elif len(made) + len(opening) < MOST_CONNECTIONS:
                task = asyncio.create_task(open_one(begin + due))
                opening.add(task)
                task.add_done_callback(opening.discard)
            else:
                waiting.append(begin + due)
            due += chance.expovariate(rate)
        await asyncio.sleep(0.001)
    with suppress(TimeoutError):
        await until(lambda: not opening and not waiting and not any(each.is_busy for each in made), "all", LEFT_SECONDS)
    for each in made:
        each.close()
    answers.statuses["unanswered"] += len(waiting)
    return answers


async def _connect(port: int, idle: Callable[[Connection], None], answers: Answers) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(idle, answers), HOST, port)
    return connection
