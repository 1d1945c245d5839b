"""Clients of the workers over HTTP, some at a time, as long as they are asked to go on."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from tests.crash.cluster import Cluster
from tests.crash.history import Sent


class Clients(ABC):
    """A group of them; each begins requests until `stop`."""

    count: int

    def __init__(self, cluster: Cluster, sent: Sent) -> None:
        self.cluster = cluster
        self.sent = sent
        self._is_over = False
        self._may_send = asyncio.Event()
        self._may_send.set()

    async def run(self) -> None:
        """Send until `stop`; ends when the last requests are answered."""
        await asyncio.gather(*(self.be_client(number) for number in range(self.count)))

    def stop(self) -> None:
        """Begin no further request."""
        self._is_over = True
        self._may_send.set()

    def pause(self) -> None:
        """Begin no request until `go_on`."""
        self._may_send.clear()

    def go_on(self) -> None:
        """Send again."""
        self._may_send.set()

    async def is_wanted(self) -> bool:
        """Wait while they pause; return False when it is over."""
        await self._may_send.wait()
        return not self._is_over

    @abstractmethod
    async def be_client(self, number: int) -> None:
        """Send one request after the other until it is over."""
