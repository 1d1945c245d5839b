"""Fetches by a topic's id, which a topic that is deleted and created again does not keep.

A name alone does not tell the two apart: a reader whose position the new topic holds would read on there, past all that
the new topic has before it. A broker refuses a fetch by an id that is no longer the topic's, whenever the topic was
created again, and whatever it holds. It costs nothing: the id takes the name's place in the request.

Brokers give topics ids since Kafka 2.8, and fetch by them since 3.1. aiokafka knows neither the request for metadata
that tells ids (version 10) nor the fetch that takes them (version 13), so both are described here; their answers get
the shape of the versions before them, which aiokafka reads. Older brokers are asked by name.
Source: Kafka protocol guide, Metadata API and Fetch API; KIP-516. tests/unit/log/test_kafka_topic_ids.py fails if
aiokafka's side of this changes.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.protocol import metadata
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from headrace.log.kafka_linger import LingeringFetcher

NO_ID = "A" * 22
UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID = 100, 103
NO_LEADER_EPOCH = NO_FETCHED_EPOCH = NO_LOG_START = NO_REPLICA = -1
NO_SESSION = (0, -1)
"""The id and the epoch of a fetch that belongs to no session."""


class TopicId(AbstractType):  # type: ignore[misc]
    """A UUID, as Kafka's own tools write it: in base64 for addresses, without the padding."""

    @classmethod
    def encode(cls, value: str) -> bytes:
        return urlsafe_b64decode(f"{value}==")

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        return urlsafe_b64encode(data.read(16)).decode().rstrip("=")


TEXT, TAGS = CompactString("utf-8"), ("tags", TaggedFields)


class MetadataResponseWithIds(Response):  # type: ignore[misc]
    """What a broker says of topics; `topic_ids` are those of the topics that exist, by name."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(("node_id", Int32), ("host", TEXT), ("port", Int32), ("rack", TEXT), TAGS)),
        ("cluster_id", TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", TEXT),
                ("topic_id", TopicId),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                TAGS,
            ),
        ),
        ("authorized_operations", Int32),
        TAGS,
    )
    brokers: list[Any]
    topics: list[Any]

    def __init__(self, *fields: Any) -> None:
        super().__init__(*fields)
        self.topic_ids: dict[str, str] = {
            topic: topic_id for code, topic, topic_id, *_ in self.topics if not code and topic_id != NO_ID
        }
        self.brokers = [broker[:4] for broker in self.brokers]
        self.topics = [
            (code, topic, is_internal, [part[:3] + part[4:7] for part in partitions])
            for code, topic, _, is_internal, partitions, *_ in self.topics
        ]


class MetadataRequestForIds(RequestStruct):  # type: ignore[misc]
    """Asks about topics by their names."""

    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = MetadataResponseWithIds
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", TopicId), ("topic", TEXT), TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        TAGS,
    )


class MetadataRequest(metadata.MetadataRequest):  # type: ignore[misc]
    """Asks about topics, and for their ids where the broker knows ids; creates none."""

    def __init__(self, topics: list[str]) -> None:
        super().__init__(topics, allow_auto_topic_creation=False)

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> RequestStruct:
        """Return the request in the newest version that the broker knows."""
        if not _knows(versions, MetadataRequestForIds):
            return super().prepare(versions)
        topics: list[Any] = [(NO_ID, topic, {}) for topic in self._topics]
        return MetadataRequestForIds(topics, False, False, False, {})


def _topics_with(*fields: tuple[str, Any]) -> tuple[str, Any]:
    """Return the part of a fetch, or of its answer, that has these fields for each partition of each topic."""
    partitions = CompactArray(("partition", Int32), *fields, TAGS)
    return ("topics", CompactArray(("topic_id", TopicId), ("partitions", partitions), TAGS))


class FetchResponseById(Response):  # type: ignore[misc]
    """What a broker has of topics, by id."""

    API_KEY = 1
    API_VERSION = 13
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        _topics_with(
            ("error_code", Int16),
            ("highwater_offset", Int64),
            ("last_stable_offset", Int64),
            ("log_start_offset", Int64),
            ("aborted_transactions", CompactArray(("producer_id", Int64), ("first_offset", Int64), TAGS)),
            ("preferred_read_replica", Int32),
            ("message_set", CompactBytes),
        ),
        TAGS,
    )
    topics: list[Any]


class FetchRequestById(RequestStruct):  # type: ignore[misc]
    """Asks for records of topics by their ids."""

    FLEXIBLE_VERSION = True
    API_KEY = 1
    API_VERSION = 13
    RESPONSE_TYPE: Any = FetchResponseById
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_time", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        _topics_with(
            ("current_leader_epoch", Int32),
            ("offset", Int64),
            ("last_fetched_epoch", Int32),
            ("log_start_offset", Int64),
            ("max_bytes", Int32),
        ),
        ("forgotten_topics", CompactArray(("topic_id", TopicId), ("partitions", CompactArray(Int32)), TAGS)),
        ("rack_id", TEXT),
        TAGS,
    )


class _Named:
    """Reads the answer to one request, and gives the topics their names back."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def decode(self, data: BytesIO) -> FetchResponseById:
        response: FetchResponseById = FetchResponseById.decode(data)
        response.topics = [
            (self._names[topic_id], [_as_version_11(*part) for part in parts]) for topic_id, parts, _ in response.topics
        ]
        return response


def _as_version_11(
    partition: int,
    code: int,
    high: int,
    stable: int,
    begin: int,
    aborted: list[tuple[int, int, Any]] | None,
    replica: int,
    records: bytes | None,
    _: Any,
) -> tuple[Any, ...]:
    if code in (UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID):
        code = OffsetOutOfRangeError.errno  # aiokafka tells it at once; the reader then finds out which of them it is
    named = [(producer, first) for producer, first, _ in aborted or ()]
    return (partition, code, high, stable, begin, named, replica, records)


class FetchById(FetchRequest):  # type: ignore[misc]
    """A fetch by id where the broker knows ids; a topic that is not there any more is an offset out of range."""

    topic_ids: Mapping[str, str]

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> RequestStruct:
        """Return the request in the newest version that the broker knows."""
        if not _knows(versions, FetchRequestById) or any(topic not in self.topic_ids for topic, _ in self.topics):
            return super().prepare(versions)
        topics: list[Any] = [
            (
                self.topic_ids[topic],
                [
                    (partition, NO_LEADER_EPOCH, offset, NO_FETCHED_EPOCH, NO_LOG_START, max_bytes, {})
                    for partition, offset, max_bytes in partitions
                ],
                {},
            )
            for topic, partitions in self.topics
        ]
        limits = (self._max_wait_ms, self._min_bytes, self._max_bytes)
        request = FetchRequestById(
            NO_REPLICA, *limits, self._isolation_level, *NO_SESSION, topics, [], self._rack_id, {}
        )
        request.RESPONSE_TYPE = _Named({self.topic_ids[topic]: topic for topic, _ in self.topics})
        return request


def by_id(request: FetchRequest, topic_ids: Mapping[str, str]) -> FetchRequest:
    """Return the request as one for the topics with these ids, by name; those without one are asked for by name."""
    request.__class__ = FetchById
    request.topic_ids = topic_ids
    return request


class FetcherById(LingeringFetcher):
    """A fetcher whose requests are by id."""

    _topic_ids: Mapping[str, str]

    def _get_actions_per_node(self, assignment: Any) -> Any:
        actions = super()._get_actions_per_node(assignment)
        for _, request in actions[0]:
            by_id(request, self._topic_ids)
        return actions


def fetch_by_id(fetcher: LingeringFetcher, topic_ids: Mapping[str, str]) -> None:
    """Let a fetcher, which has fetched nothing yet, read the topics with these ids and no others of their names."""
    fetcher.__class__ = FetcherById
    fetcher._topic_ids = topic_ids


def _knows(versions: Mapping[int, tuple[int, int]], request: type[RequestStruct]) -> bool:
    oldest, newest = versions.get(request.API_KEY, (0, 0))
    return bool(oldest <= request.API_VERSION <= newest)
