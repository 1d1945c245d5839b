"""The Kafka client that everything here uses: aiokafka's, except that it creates no topic and leaves no connection.

Brokers create a topic that they are asked about if `auto.create.topics.enable` is true (their default) and the
metadata request allows it. aiokafka 0.14 always allows it and has no option for it, so a topic that is deleted while
the platform runs would be back within a second, with one partition. It also forgets connections: the one whose
bootstrap is cancelled, one that is made while the client is closed, and one that the broker closed a moment before the
next request. tests/unit/log/test_kafka_client.py fails if aiokafka's side of this changes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from headrace.log.kafka_connection import KafkaConnection, Options, connect

_BOOTSTRAP = ("bootstrap", ConnectionGroup.DEFAULT)


class KafkaClient(AIOKafkaClient):  # type: ignore[misc]
    """Connections to the brokers, and what they say of the topics that somebody here asked for."""

    _is_closed = False

    async def bootstrap(self) -> None:
        """Learn the brokers from the first one that answers. Replaces aiokafka's method of that name.

        Raises: KafkaConnectionError (none answers).
        """
        for host, port, _ in self.hosts:
            try:
                connection = await self._connect(host, port)
                try:
                    self.cluster.update_metadata(await connection.send(MetadataRequest([])))
                except BaseException:
                    connection.close()
                    raise
            except (OSError, KafkaError, TimeoutError):
                continue
            if self.cluster.brokers():
                connection.close()
            else:
                self._conns[_BOOTSTRAP] = connection
            self._sync_task = asyncio.get_running_loop().create_task(self._md_synchronizer())
            return
        raise KafkaConnectionError(f"Unable to bootstrap from {self.hosts}")

    async def _connect(self, host: str, port: int, **how: Any) -> KafkaConnection:
        return await connect(
            host,
            port,
            client_id=self._client_id,
            request_timeout_ms=self._request_timeout_ms,
            ssl_context=self._ssl_context,
            security_protocol=self._security_protocol,
            max_idle_ms=self._connections_max_idle_ms,
            sasl_mechanism=self._sasl_mechanism,
            sasl_plain_username=self._sasl_plain_username,
            sasl_plain_password=self._sasl_plain_password,
            **how,
        )

    async def _get_conn(self, node_id: Any, *, group: Any = ConnectionGroup.DEFAULT) -> KafkaConnection | None:
        """Return a connection to the broker; None if there is none, or the client was closed meanwhile.

        Replaces aiokafka's method of that name. `group` tells apart the connections to one broker.
        """
        name = (node_id, group)
        known: KafkaConnection | None = self._conns.get(name)
        if known is not None:
            if known.connected():
                return known
            del self._conns[name]
            known.close(CloseReason.CONNECTION_BROKEN)  # its own task, which would do it, may not have run yet
        broker = self.cluster.broker_metadata(node_id)
        if broker is None:
            self.force_metadata_update()
            return None
        async with self._get_conn_lock:
            known = self._conns.get(name)
            if known is not None:
                return known
            try:
                made = await self._connect(broker.host, broker.port, on_close=self._on_connection_closed)
            except (OSError, KafkaError, TimeoutError):
                self.force_metadata_update()
                return None
            if self._is_closed:
                made.close()
                return None
            self._conns[name] = made
            return made

    async def _metadata_update(self, cluster_metadata: ClusterMetadata, topics: Collection[str] | None) -> bool:
        """Ask one broker after the other; True once one has answered. Replaces aiokafka's method of that name.

        No topics means only the brokers' addresses; aiokafka would ask for every topic of the cluster.
        """
        request = MetadataRequest(None if topics is None else list(topics), allow_auto_topic_creation=False)
        nodes: list[Any] = [broker.nodeId for broker in self.cluster.brokers()]
        random.shuffle(nodes)
        if _BOOTSTRAP in self._conns:
            nodes.append(_BOOTSTRAP[0])
        for node in nodes:
            connection = await self._get_conn(node)
            if connection is None:
                continue
            try:
                response = await connection.send(request)
            except (KafkaError, TimeoutError):
                continue
            if not response.brokers:
                return False
            cluster_metadata.update_metadata(response)
            if _BOOTSTRAP in self._conns:
                self._conns.pop(_BOOTSTRAP).close()
            return True
        cluster_metadata.failed_update(None)
        return False

    async def close(self) -> None:
        """Disconnect; whoever waits for an update of the metadata is told that there is none."""
        self._is_closed = True
        await super().close()
        if self._md_update_fut is not None and not self._md_update_fut.done():
            self._md_update_fut.set_result(False)


def make_consumer(options: Options, **more: Any) -> AIOKafkaConsumer:
    """Return an aiokafka consumer that never makes the brokers create a topic."""
    consumer = AIOKafkaConsumer(**options, **more)
    consumer._client.__class__ = KafkaClient  # made by the constructor, which takes no client
    return consumer
