"""What our Kafka client relies on in aiokafka: a new release that changes it fails here and not in production."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import aiokafka
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.group_coordinator import BaseCoordinator, GroupCoordinator
from aiokafka.protocol.metadata import MetadataRequest

from headrace.log.kafka_client import KafkaClient, make_consumer

PACKAGE = Path(aiokafka.__file__).parent


async def test_consumers_get_a_client_that_creates_no_topic() -> None:
    consumer = make_consumer({"bootstrap_servers": ["nowhere:1"]})

    assert type(consumer._client) is KafkaClient
    await consumer.stop()


def test_aiokafka_asks_for_metadata_where_we_know_it() -> None:
    """A new place would be able to create topics again; `bootstrap` names none, and the admin client is not used."""
    places = {
        (str(file.relative_to(PACKAGE)), call)
        for file in PACKAGE.rglob("*.py")
        for call in re.findall(r"(?<!class )\bMetadataRequest\([^\n]*", file.read_text())
        if "protocol" not in file.parts
    }

    assert places == {
        ("client.py", "MetadataRequest([]))"),
        ("client.py", "MetadataRequest(list(topics) if topics else None)"),
        ("admin/client.py", "MetadataRequest(topics)"),
    }


def test_our_update_replaces_aiokafkas() -> None:
    ours, theirs = (inspect.signature(client._metadata_update) for client in (KafkaClient, AIOKafkaClient))

    assert list(ours.parameters) == list(theirs.parameters)
    assert "_metadata_update(self.cluster, topics)" in inspect.getsource(AIOKafkaClient._md_synchronizer)
    assert "allow_auto_topic_creation" in inspect.signature(MetadataRequest).parameters


def test_our_bootstrap_replaces_aiokafkas() -> None:
    theirs = inspect.getsource(AIOKafkaClient.bootstrap)

    assert "self._conns[bootstrap_id] = bootstrap_conn" in theirs
    assert "self._sync_task = create_task(self._md_synchronizer())" in theirs
    given = re.findall(r"(\w+)=self\._\w+,", theirs)
    ours = re.findall(r"(\w+)=self\._\w+,", inspect.getsource(KafkaClient._connect))
    other_mechanisms = ["sasl_kerberos_service_name", "sasl_kerberos_domain_name", "sasl_oauth_token_provider"]
    assert given == ours + other_mechanisms


def test_our_connections_replace_aiokafkas() -> None:
    """One that is at its end is forgotten by aiokafka, and each is made in a place that we replace."""
    ours, theirs = (inspect.signature(client._get_conn) for client in (KafkaClient, AIOKafkaClient))

    assert set(theirs.parameters) - set(ours.parameters) == {"no_hint"}
    source = inspect.getsource(AIOKafkaClient._get_conn)
    assert "if not conn.connected():\n                del self._conns[conn_id]" in source
    assert "on_close=self._on_connection_closed" in source
    counts = {file.relative_to(PACKAGE): file.read_text().count("await create_conn(") for file in PACKAGE.rglob("*.py")}
    assert {str(file): count for file, count in counts.items() if count} == {"client.py": 2}


def test_aiokafka_closes_what_is_not_let_in() -> None:
    """With the `close` that we replace; and the future that it returns is done when the socket is closed."""
    connect = inspect.getsource(AIOKafkaConnection.connect)

    assert "self.close()\n            raise" in connect
    assert list(inspect.signature(AIOKafkaConnection.close).parameters) == ["self", "reason", "exc"]
    assert "return self._closed_fut" in inspect.getsource(AIOKafkaConnection.close)


def test_the_private_names_that_we_use_exist() -> None:
    client = inspect.getsource(AIOKafkaClient)
    for name in ("_conns", "_md_update_fut", "_get_conn", "_get_conn_lock", "_wait_on_metadata", "_sync_task"):
        assert name in client
    coordinator = inspect.getsource(GroupCoordinator) + inspect.getsource(BaseCoordinator)
    for name in ("member_id", "coordinator_id", "group_id", "_closing"):
        assert f"self.{name}" in coordinator
    consumer = inspect.getsource(AIOKafkaConsumer)
    for name in ("_client", "_coordinator", "_fetcher"):
        assert f"self.{name}" in consumer
