"""The Kafka client that everything here uses: aiokafka's, except that it never makes the brokers create a topic.

Brokers create a topic that they are asked about if `auto.create.topics.enable` is true (their default) and the
metadata request allows it. aiokafka 0.14 always allows it and has no option for it, so a topic that is deleted while
the platform runs would be back within a second, with one partition. tests/unit/log/test_kafka_client.py fails if
aiokafka's side of this changes.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from headrace.log.kafka_connection import Options

_BOOTSTRAP = "bootstrap"


class KafkaClient(AIOKafkaClient):  # type: ignore[misc]
    """Connections to the brokers, and what they say of the topics that somebody here asked for."""

    async def _metadata_update(self, cluster_metadata: ClusterMetadata, topics: Collection[str] | None) -> bool:
        """Ask one broker after the other; True once one has answered. Replaces aiokafka's method of that name.

        No topics means only the brokers' addresses; aiokafka would ask for every topic of the cluster.
        """
        request = MetadataRequest(None if topics is None else list(topics), allow_auto_topic_creation=False)
        bootstrap = (_BOOTSTRAP, ConnectionGroup.DEFAULT)
        nodes: list[Any] = [broker.nodeId for broker in self.cluster.brokers()]
        random.shuffle(nodes)
        if bootstrap in self._conns:
            nodes.append(_BOOTSTRAP)
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
            if bootstrap in self._conns:
                self._conns.pop(bootstrap).close()
            return True
        cluster_metadata.failed_update(None)
        return False

    async def close(self) -> None:
        """Disconnect; whoever waits for an update of the metadata is told that there is none."""
        await super().close()
        if self._md_update_fut is not None and not self._md_update_fut.done():
            self._md_update_fut.set_result(False)


def make_consumer(options: Options, **more: Any) -> AIOKafkaConsumer:
    """Return an aiokafka consumer that never makes the brokers create a topic."""
    consumer = AIOKafkaConsumer(**options, **more)
    consumer._client.__class__ = KafkaClient  # made by the constructor, which takes no client
    return consumer
