"""The log read from its beginning: what has to be applied to each key, and in which order."""

from __future__ import annotations

import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from tests.crash.load import MARK

Position = tuple[str, int, int]
"""Topic, partition, offset."""
Headers = Mapping[str, str | bytes | None]
SILENT_SECONDS = 60.0
"""Brokers from which nothing comes for so long are gone."""


class Data(msgspec.Struct):
    """The data of an event, of whatever type."""

    key: str = ""
    number: int = 0
    order: str = ""
    trouble: str = ""
    echoes: bool = False
    reminds: bool = False
    tells: bool = False
    orders: str = ""
    start: str = ""
    count: int = 0


class Structured(msgspec.Struct):
    """An event as the platform itself writes it into a record."""

    id: str
    type: str
    data: Data


class Keys(defaultdict[str, int]):
    """A set of (key, number): the numbers of a key are the bits of its value."""

    def __init__(self) -> None:
        super().__init__(int)

    def take(self, key: str, number: int) -> bool:
        """Add one. Returns False if it was there."""
        mask, known = 1 << number, self[key]
        self[key] = known | mask
        return not known & mask

    def each(self) -> Iterator[tuple[str, int]]:
        """Yield what is in it."""
        for key, mask in self.items():
            for number in range(mask.bit_length()):
                if mask >> number & 1:
                    yield key, number


@dataclass
class Stream:
    """The events of one type, as a reader of committed records sees them."""

    numbers: defaultdict[str, array[int]] = field(default_factory=lambda: defaultdict(lambda: array("I")))
    """What has to be applied to each key, in the order of first copies."""
    there: Keys = field(default_factory=Keys)
    ids: dict[tuple[str, int], int] = field(default_factory=dict)
    """The hash of the id of each first copy, of types that the service emits."""
    second_ids: list[tuple[str, int]] = field(default_factory=list)
    """Events that are there under another id as well."""


@dataclass
class Closed:
    """What a window of a key came to: the numbers that it has emitted, and how many it said they are."""

    numbers: set[int] = field(default_factory=set)
    counts: set[int] = field(default_factory=set)


@dataclass
class Streams:
    """All topics together."""

    by_type: defaultdict[str, Stream] = field(default_factory=lambda: defaultdict(Stream))
    asked: defaultdict[str, Keys] = field(default_factory=lambda: defaultdict(Keys))
    """Events that ask for something and are to be applied, by what they ask for: `echoes`, `reminds`, `tells`,
    `good` and `bad` orders."""
    rejected: set[Position] = field(default_factory=set)
    """First copies of events that are given up on."""
    malformed: set[Position] = field(default_factory=set)
    records: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Visible records by topic and partition."""
    places: dict[tuple[str, str, int], Position] = field(default_factory=dict)
    """By type, key and number: first copies of events whose time of application matters."""
    published: defaultdict[str, dict[tuple[str, int], float]] = field(default_factory=lambda: defaultdict(dict))
    """By type, key and number: when the first copy of what a handler or its timer emitted was published, in Unix
    seconds."""
    closed: defaultdict[tuple[str, str], Closed] = field(default_factory=lambda: defaultdict(Closed))
    """By key and start: the windows."""
    strange: list[str] = field(default_factory=list)
    """What nobody has published, as far as is known."""


def read(bootstrap: str, topics: Mapping[str, int]) -> Streams:
    """Read the topics, given with their partitions, from their beginning to their end."""
    streams = Streams()
    for topic, partitions in topics.items():
        for message in _messages(bootstrap, topic, partitions):
            _take(streams, topic, message)
    return streams


class Event(NamedTuple):
    """An event where it is in the log; `at` is when it was published, in Unix milliseconds."""

    topic: str
    partition: int
    offset: int
    at: int
    type: str
    id: str
    key: str
    number: int


def events_of(bootstrap: str, topic: str, partitions: int) -> Iterator[Event]:
    """Yield each event of a topic that can be read."""
    for message in _messages(bootstrap, topic, partitions):
        with suppress(msgspec.MsgspecError, KeyError):
            event_id, type_, data = _event(message.value() or b"", dict(message.headers() or []))
            place = topic, message.partition() or 0, message.offset() or 0
            yield Event(*place, message.timestamp()[1], type_, event_id, data.order or data.key, data.number)


def _take(streams: Streams, topic: str, message: Message) -> None:
    position = (topic, message.partition() or 0, message.offset() or 0)
    headers = dict(message.headers() or [])
    streams.records[position[:2]] += 1
    if MARK in headers:
        streams.malformed.add(position)
        return
    try:
        event_id, type_, data = _event(message.value() or b"", headers)
    except (msgspec.MsgspecError, KeyError) as error:
        streams.strange.append(f"{position}: {error}")
        return
    if data.order:
        data.key = data.order
    stream = streams.by_type["noted" if type_ == "doomed" else type_]
    is_first = stream.there.take(data.key, data.number)
    if type_ != "noted":
        known = stream.ids.setdefault((data.key, data.number), hash(event_id))
        if known != hash(event_id):
            stream.second_ids.append((data.key, data.number))
    if not is_first:
        return
    if type_ == "windowed" and data.count:
        closed = streams.closed[data.key, data.start]
        closed.numbers.add(data.number)
        closed.counts.add(data.count)
    if type_ == "doomed" or data.trouble == "reject":
        streams.rejected.add(position)
        return
    stream.numbers[data.key].append(data.number)
    if data.echoes or data.reminds or type_ in ("reminded", "told"):
        streams.places[type_, data.key, data.number] = position
    if type_ in ("echoed", "reminded"):
        streams.published[type_][data.key, data.number] = message.timestamp()[1] / 1_000
    for what in ("echoes", "reminds", "tells", data.orders):
        if what and (what == data.orders or getattr(data, what)):
            streams.asked[what].take(data.key, data.number)


_data = msgspec.json.Decoder(Data).decode
_structured = msgspec.json.Decoder(Structured).decode


def _event(value: bytes, headers: Headers) -> tuple[str, str, Data]:
    """Return id, type and data of an event. Raises: MsgspecError, KeyError."""
    event_id = headers.get("ce_id")
    if isinstance(event_id, bytes):
        type_ = headers.get("ce_type")
        return event_id.decode(), type_.decode() if isinstance(type_, bytes) else "", _data(value)
    event = _structured(value)
    return event.id, event.type, event.data


def _messages(bootstrap: str, topic: str, partitions: int) -> Iterator[Message]:
    """Yield every committed record, in order per partition. Raises: TimeoutError (the brokers are silent)."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "crash-evidence",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        unread, heard_at = partitions, time.monotonic()
        while unread:
            messages = consumer.consume(10_000, 0.5)
            if messages:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENT_SECONDS:
                raise TimeoutError(f"{topic} cannot be read: its brokers were silent for {SILENT_SECONDS:g} s")
            for message in messages:
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread -= 1
                else:
                    raise RuntimeError(f"{topic} cannot be read: {error}")
    finally:
        consumer.close()
