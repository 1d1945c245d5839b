"""How much of an effect goes on at once: calls under way in this process, calls that begin in a second, outages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from headrace.engine.breaker import Breaker
from headrace.handlers.subscription import Effect, Subscription
from headrace.item import Item

BURST_SECONDS = 0.1
"""So much of a rate may begin at one moment, after a pause."""

Wake = Callable[[], None]


class Limiter:
    """The limits of one effect in one process, shared by its partitions. No I/O."""

    def __init__(self, effect: Effect, breaker: Breaker, clock: Callable[[], float] = time.monotonic) -> None:
        self.breaker = breaker
        self.in_flight = 0
        self._limits = effect.limits
        self._clock = clock
        self._shares: dict[object, float] = {}
        self._next_at = 0.0
        self._waiting: dict[Wake, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def join(self, member: object, share: float) -> None:
        """A partition comes: `share` is its part of the effect's rate, 1 divided by the number of partitions."""
        self._shares[member] = share

    def leave(self, member: object, wake: Wake) -> None:
        """A partition goes."""
        self._shares.pop(member, None)
        self._waiting.pop(wake, None)

    def take(self, wake: Wake) -> bool:
        """Begin a call, if it may; `give_back` must follow. Else `wake` is called when it is worth another try."""
        now = self._clock()
        if self.in_flight < self._limits.concurrency:
            seconds = self._seconds(now)
            if seconds <= 0:
                self.in_flight += 1
                return True
            self._wake_in(seconds)
        self._waiting[wake] = None
        return False

    def give_back(self) -> None:
        """A call has ended."""
        self.in_flight -= 1
        if self._timer is None:
            self._wake_next()

    def probed(self, item: Item) -> None:
        """A call has ended during an outage: it may be over."""
        self.breaker.probed([item])
        if self.breaker.outage is None:
            self.wake_all()

    def wake_all(self) -> None:
        """Let all try again."""
        waiting, self._waiting = self._waiting, {}
        for wake in waiting:
            wake()

    def _seconds(self, now: float) -> float:
        """Return how long it is until a call may begin, and count it if that is now."""
        if self.breaker.outage is not None:
            return 0.0 if self.breaker.take_probe() else self.breaker.seconds_to_probe()
        if self._limits.per_second is None:
            return 0.0
        rate = self._limits.per_second * sum(self._shares.values())
        self._next_at = max(self._next_at, now - BURST_SECONDS)
        if self._next_at > now:
            return self._next_at - now
        self._next_at += 1.0 / rate
        return 0.0

    def _wake_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.wake_all()

    def _wake_next(self) -> None:
        """Let the one that has waited for longest try: it waits again, behind the others, if there is more for it.

        One that begins nothing any more, since its partition is leaving, keeps none of the others waiting.
        """
        for wake in list(self._waiting):
            if self.in_flight >= self._limits.concurrency or self._timer is not None:
                return
            self._waiting.pop(wake, None)
            wake()


class Limiters:
    """The limiters of one process."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Effect], Limiter] = {}

    def of(self, subscription: Subscription, effect: Effect, outage_keys: int) -> Limiter:
        """Return the limiter of an effect."""
        key = (subscription.group, effect)
        if key not in self._known:
            self._known[key] = Limiter(effect, Breaker(subscription.name, outage_keys, time.monotonic))
        return self._known[key]
