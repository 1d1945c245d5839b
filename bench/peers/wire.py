"""The least that must be read of a wallet event, in each form that it has on a topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

Type = Literal["wallet.credited", "wallet.debited"]


class ConsumerRecord(Protocol):
    """What a client of Kafka hands out."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class Data(msgspec.Struct, gc=False):
    """The data of both types."""

    customer: str
    amount: int


class Structured(msgspec.Struct, gc=False):
    """An event in structured mode; its other attributes are passed over."""

    type: Type
    data: Data


_data = msgspec.json.Decoder(Data).decode
_structured = msgspec.json.Decoder(Structured).decode


def reader_of(record: ConsumerRecord) -> Callable[[ConsumerRecord], tuple[bool, Data]]:
    """Return what reads the records of this one's topic, all of which have its form."""
    return read_binary if any(name == "ce_type" for name, _ in record.headers) else read_structured


def read_binary(record: ConsumerRecord) -> tuple[bool, Data]:
    """Return whether the event is a credit, and its data, of a record in binary mode."""
    for name, value in record.headers:
        if name == "ce_type":
            return value == b"wallet.credited", _data(record.value)
    raise ValueError("a record without ce_type")


def read_structured(record: ConsumerRecord) -> tuple[bool, Data]:
    """Return whether the event is a credit, and its data, of a record in structured mode."""
    event = _structured(record.value)
    return event.type == "wallet.credited", event.data
