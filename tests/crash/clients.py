"""Clients of the workers over HTTP, some at a time, as long as they are asked to go on."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from tests.crash.cluster import Cluster
from tests.crash.history import Sent


class Clients(ABC):
    """A group of them; each begins requests until `is_over`."""

    count: int

    def __init__(self, cluster: Cluster, sent: Sent) -> None:
        self.cluster = cluster
        self.sent = sent
        self.is_over = False

    async def run(self) -> None:
        """Send until `stop`; ends when the last requests are answered."""
        await asyncio.gather(*(self.be_client(number) for number in range(self.count)))

    def stop(self) -> None:
        """Begin no further request."""
        self.is_over = True

    @abstractmethod
    async def be_client(self, number: int) -> None:
        """Send one request after the other until it is over."""
