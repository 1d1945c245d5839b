"""Readers that hear nothing of Kafka for a while, as on a network that stalls or in a process that is frozen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest

from headrace.log.kafka_client import KafkaClient


class Deafness:
    """Keeps the answers to fetches from every reader of the process, until it ends: then their connections break."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._is_over = asyncio.Event()
        self._is_over.set()
        send = KafkaClient.send

        async def send_or_wait(client: KafkaClient, node: Any, request: Any, **how: Any) -> Any:
            if not isinstance(request, FetchRequest):
                return await send(client, node, request, **how)
            if self._is_over.is_set():
                answer = await send(client, node, request, **how)
                if self._is_over.is_set():
                    return answer
            await self._is_over.wait()
            raise KafkaConnectionError("the connection broke")

        monkeypatch.setattr(KafkaClient, "send", send_or_wait)

    def begin(self) -> None:
        """Let no answer through from now on, not even one that is on its way."""
        self._is_over.clear()

    def end(self) -> None:
        """Let readers ask again."""
        self._is_over.set()
