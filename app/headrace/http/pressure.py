"""Refuses the requests that a process cannot answer in time, when refusing them still costs little.

A flood of requests queues in the event loop, before any limit that is counted in a route: each of them is parsed and
routed first, which takes half of the time of accepting it, so that at three times the peak hardly any is accepted. So
`connection.py` asks here before it hands a request to the application. What is known are the requests whose tasks have
not begun, and how long the loop takes from one beginning to the next while some wait; together they say how long a new
one would wait. Those that have begun are limited while the loop makes them late (`concurrency.py`). Before all that a
request may have waited in the kernel, until the loop took its connection or read from it; the kernel tells for how
long. A process that stands still for a moment finds late requests as well, and accepts them: it is flooded if requests
come late for longer than one may wait. Only paths are refused on which events were accepted before, so a team's own
routes are never concerned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from headrace.http.concurrency import ConcurrencyLimit
from headrace.http.glance import Glance
from headrace.http.loop_load import LoopLoad
from headrace.http.problems import MEDIA_TYPE, Problem
from headrace.telemetry.logging import get_logger
from headrace.telemetry.rate_limit import OncePerMinute

logger = get_logger("headrace.http")

SCOPE_KEY = "headrace.pressure"
FIRST_COST_SECONDS = 0.0005
"""What a request is expected to take before any was timed."""
LONGEST_COST_SECONDS = 0.1
SMOOTHING = 0.02
"""The share of the newest request in what one is expected to take."""
FORGET_SECONDS = 1.0
"""A flood is over if no request came late for so long, and what requests took is forgotten if none has begun for so
long."""
KERNEL_SECONDS = 0.01
"""To which the kernel's clock tells for how long a request has waited."""
ASKED = 8
"""While none comes late, the kernel is asked about one request in so many: it takes 6 µs."""
MOST_PATHS = 10_000


class Arrival:
    """A request that was admitted."""

    __slots__ = ("_path", "at", "is_counted", "is_whole", "pressure")

    def __init__(self, pressure: Pressure, path: str, at: float) -> None:
        self.pressure = pressure
        """That of its process."""
        self._path = path
        self.at = at
        self.is_counted = False
        """True if its path brings events."""
        self.is_whole = False
        """True if all of its body was there when its task began."""

    def begins(self, *, is_whole: bool = False) -> None:
        """Note that its task runs."""
        self.is_whole = is_whole
        self.pressure.begins(self)

    def ends(self) -> None:
        """Note that it was answered, by whomever."""
        self.pressure.ends(self)

    def is_accepted(self) -> None:
        """Note that it has brought events, as its path does."""
        self.pressure.accepted(self._path)


class Pressure:
    """What is under way in one process, and how long it takes."""

    def __init__(self, most_seconds: float) -> None:
        """`most_seconds`: how long a request may have to wait until it begins, and what its answer may take."""
        self._most_seconds = most_seconds
        self._waiting = 0
        """Requests whose tasks have not begun."""
        self._paths: set[str] = set()
        self._cost_seconds = FIRST_COST_SECONDS
        self._last_begun = 0.0
        self._late_since = self._late_at = -FORGET_SECONDS
        """When requests began to come late out of the kernel, and when the last one did."""
        self._unasked = ASKED
        """Requests since the kernel was asked about one; it is asked about the first."""
        self._load = LoopLoad()
        self._concurrency = ConcurrencyLimit(most_seconds, self._load)
        self._refused = 0
        self._warnings = OncePerMinute()
        self.glance = Glance()
        """At requests that may have to be refused."""
        self.refusal = _refusal(most_seconds)
        """The answer, from its status line on."""

    def admit(self, path: str, waited_seconds: Callable[[], float] = lambda: 0.0) -> Arrival | None:
        """Return None if a request for the path would wait too long; else it waits until it begins.

        `waited_seconds` tells how long it has waited to be read.
        """
        now = perf_counter()
        arrival = Arrival(self, path, now)
        if path not in self._paths:
            return arrival
        if self._is_full(now) or (self._is_asked(now) and self._is_flooded(now, waited_seconds())):
            self._refused += 1
            return None
        arrival.is_counted = True
        self._waiting += 1
        self._concurrency.comes(arrival, now)
        return arrival

    def is_full(self) -> bool:
        """True if no further event may come in."""
        return self._is_full(perf_counter())

    def refuses(self, path: str) -> bool:
        """Refuse a request for the path while nothing further may come in; True if events come in on it."""
        is_refused = path in self._paths
        self._refused += is_refused
        return is_refused

    def _is_full(self, now: float) -> bool:
        if now - self._last_begun > FORGET_SECONDS:
            self._cost_seconds = FIRST_COST_SECONDS
        return self._concurrency.is_reached(now) or self._waiting * self._cost_seconds > self._most_seconds

    def _is_asked(self, now: float) -> bool:
        """Tell whether to ask the kernel: always while requests come late, else for a sample."""
        self._unasked += 1
        if self._unasked < ASKED and now - self._late_at > FORGET_SECONDS:
            return False
        self._unasked = 0
        return True

    def _is_flooded(self, now: float, waited_seconds: float) -> bool:
        """True if a request comes late, as others have for a while."""
        if waited_seconds <= self._most_seconds + KERNEL_SECONDS:
            return False
        if now - self._late_at > FORGET_SECONDS:
            self._late_since = now
        self._late_at = now
        return now - self._late_since > self._most_seconds

    def begins(self, arrival: Arrival) -> None:
        """Note that a request begins."""
        now = perf_counter()
        if arrival.is_counted:
            self._waiting -= 1
            if self._waiting:
                seconds = min(LONGEST_COST_SECONDS, now - max(self._last_begun, arrival.at))
                self._cost_seconds += SMOOTHING * (seconds - self._cost_seconds)
        self._last_begun = now

    def ends(self, arrival: Arrival) -> None:
        """Note that a request was answered."""
        if arrival.is_counted:
            self._concurrency.ends(arrival, perf_counter())

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Measure how busy the loop is, as long as requests are in flight."""
        if self._has_some_in_flight():
            self._load.watch(loop, self._has_some_in_flight)

    def _has_some_in_flight(self) -> bool:
        return self._concurrency.in_flight > 0

    def accepted(self, path: str) -> None:
        """Note that events are accepted on the path."""
        if path not in self._paths and len(self._paths) < MOST_PATHS:
            self._paths.add(path)

    def take_refused(self) -> int:
        """Return how many were refused since the last time, and say so in the log once a minute."""
        refused, self._refused = self._refused, 0
        if refused and self._warnings.held_back(SCOPE_KEY) is not None:
            logger.warning(
                "events were answered 429, since more come than this process can answer in time; "
                "run more processes that take events in",
                most_seconds=self._most_seconds,
                requests=refused,
            )
        return refused


def _refusal(most_seconds: float) -> bytes:
    detail = (
        f"more requests come than this process can answer within {most_seconds:g} s "
        "(HEADRACE_INGEST_MAX_WAIT_SECONDS); nothing was accepted."
    )
    body = bytes(Problem(429, "rate-limited", "Too many requests", detail).response("/events").body)
    head = f"HTTP/1.1 429 Too Many Requests\r\ncontent-type: {MEDIA_TYPE}\r\nretry-after: 1\r\n"
    return f"{head}content-length: {len(body)}\r\n".encode() + b"\r\n" + body
