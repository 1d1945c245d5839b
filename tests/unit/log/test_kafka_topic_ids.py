"""Requests by topic id: in which version they are sent, and how their answers look to aiokafka, which is real."""

from __future__ import annotations

import inspect
from io import BytesIO
from typing import Any

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import OffsetOutOfRangeError, UnknownTopicOrPartitionError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest as NamedMetadataRequest
from aiokafka.structs import TopicPartition

from headrace.log.kafka_topic_ids import (
    NO_ID,
    UNKNOWN_TOPIC_ID,
    FetchById,
    FetchResponseById,
    MetadataRequest,
    MetadataResponseWithIds,
    by_id,
)

FETCH, METADATA = FetchRequest.API_KEY, NamedMetadataRequest.API_KEY
KAFKA_4, KAFKA_3_0, KAFKA_2_1 = (
    {FETCH: (4, 18), METADATA: (0, 13)},
    {FETCH: (0, 12), METADATA: (0, 11)},
    {FETCH: (0, 10), METADATA: (0, 7)},
)
ID = "AAECAwQFBgcICQoLDA0ODw"  # the bytes from 0 to 15


def fetch(topic_ids: dict[str, str]) -> FetchRequest:
    """Return a request for two partitions of the topic `notes`."""
    return by_id(FetchRequest(500, 1, 9000, 1, [("notes", [(0, 7, 100), (1, 8, 100)])], rack_id="a"), topic_ids)


@pytest.mark.parametrize(
    ("versions", "topic_ids", "version"),
    [(KAFKA_4, {"notes": ID}, 13), (KAFKA_4, {}, 11), (KAFKA_3_0, {"notes": ID}, 11), (KAFKA_2_1, {}, 10)],
    ids=["by id", "topic without an id", "broker that does not fetch by ids", "broker that knows no ids"],
)
def test_fetch_is_by_id_where_that_is_possible(versions: Any, topic_ids: dict[str, str], version: int) -> None:
    request = fetch(topic_ids).prepare(versions)

    assert version == request.API_VERSION
    assert request.topics[0][0] == (ID if version == 13 else "notes")
    request.encode()


def test_fetched_topics_have_their_names_back() -> None:
    request = fetch({"notes": ID}).prepare(KAFKA_4)
    parts: list[Any] = [
        (0, 0, 20, 19, 3, [(5, 11, {})], -1, b"records", {}),
        (1, UNKNOWN_TOPIC_ID, -1, -1, -1, None, -1, None, {}),
    ]
    sent = FetchResponseById(0, 0, 0, [(ID, parts, {})], {}).encode()

    answer = request.RESPONSE_TYPE.decode(BytesIO(sent))

    assert answer.topics == [
        (
            "notes",
            [
                (0, 0, 20, 19, 3, [(5, 11)], -1, b"records"),
                (1, OffsetOutOfRangeError.errno, -1, -1, -1, [], -1, None),
            ],
        )
    ]


def test_metadata_has_ids_where_the_broker_knows_ids() -> None:
    new, old = (MetadataRequest(["notes"]).prepare(versions) for versions in (KAFKA_4, KAFKA_2_1))

    assert (new.API_VERSION, new.topics, new.allow_auto_topic_creation) == (10, [(NO_ID, "notes", {})], False)
    assert (old.API_VERSION, old.topics, old.allow_auto_topic_creation) == (5, ["notes"], False)
    new.encode()


def test_aiokafka_reads_metadata_with_ids() -> None:
    parts: list[Any] = [(0, 0, 3, 9, [3, 4], [3], [4], {})]
    topics: list[Any] = [
        (0, "notes", ID, False, parts, 0, {}),
        (0, "old", NO_ID, False, parts, 0, {}),
        (UnknownTopicOrPartitionError.errno, "gone", NO_ID, False, [], 0, {}),
    ]
    sent = object.__new__(MetadataResponseWithIds)  # what a broker sends has not the shape that its reader gets
    names = MetadataResponseWithIds.SCHEMA.names
    values: tuple[Any, ...] = (0, [(3, "here", 9092, None, {})], "cluster", 3, topics, 0, {})
    sent.__dict__.update(zip(names, values, strict=True))

    answer = MetadataResponseWithIds.decode(BytesIO(sent.encode()))
    cluster = ClusterMetadata()
    cluster.update_metadata(answer)

    assert answer.topic_ids == {"notes": ID}
    assert answer.cluster_id == "cluster"
    assert answer.topics[0] == (0, "notes", False, [(0, 0, 3, [3, 4], [3], [4])])
    assert cluster.leader_for_partition(TopicPartition("notes", 0)) == 3
    assert cluster.broker_metadata(3).host == "here"
    assert cluster.topics() == {"notes", "old"}


def test_aiokafka_knows_no_ids() -> None:
    """Otherwise its own requests would do."""
    assert max(version.API_VERSION for version in FetchRequest._CLASSES) == 11
    assert max(version.API_VERSION for version in NamedMetadataRequest._CLASSES) == 5


def test_the_private_names_that_we_use_exist() -> None:
    sending, receiving = (
        inspect.getsource(part) for part in (AIOKafkaConnection.send, AIOKafkaConnection._handle_frame)
    )
    assert "request.prepare(self._versions)" in sending
    assert "resp_type = request.RESPONSE_TYPE" in receiving and "resp_type.decode(resp)" in receiving
    building = inspect.getsource(FetchRequest)
    for name in ("max_wait_ms", "min_bytes", "max_bytes", "isolation_level", "rack_id", "topics"):
        assert f"self._{name} = " in building
    reading = inspect.getsource(Fetcher._proc_fetch_request)
    assert (
        "for topic, partitions in request.topics" in reading and "for topic, partitions in response.topics" in reading
    )
    assert "aborted_transactions = part_data[2]" in reading and "part_data[-1]" in reading
    assert "self._get_actions_per_node(assignment)" in inspect.getsource(Fetcher._fetch_requests_routine)
    assert issubclass(FetchById, FetchRequest)
