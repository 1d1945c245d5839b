"""Wallet events as a foreign client writes them (librdkafka, CloudEvents binary mode), and what they must come to."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from confluent_kafka import Producer


@dataclass
class Wallet:
    """The sequential result for one customer."""

    balance: int = 0
    credits: int = 0
    debits: int = 0
    applied: int = 0


@dataclass
class Expected:
    """What the stream comes to when every distinct valid event is applied once, in order."""

    wallets: dict[str, Wallet] = field(default_factory=lambda: defaultdict(Wallet))
    overdrawn: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    valid: int = 0
    malformed: int = 0
    records: int = 0

    def apply(self, customer: str, amount: int, *, is_credit: bool) -> None:
        """Apply one event to the model."""
        wallet = self.wallets[customer]
        self.valid += 1
        wallet.applied += 1
        if is_credit:
            wallet.balance += amount
            wallet.credits += 1
        else:
            wallet.balance -= amount
            wallet.debits += 1
            if wallet.balance < 0:
                self.overdrawn[customer] += 1


class Wire(NamedTuple):
    """One record as it is handed to the client."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, str | bytes | None]]


def wallet_record(event_id: str, customer: str, amount: int, *, is_credit: bool) -> Wire:
    """Return the record of one event, in CloudEvents binary mode."""
    return Wire(
        customer.encode(),
        json.dumps({"customer": customer, "amount": amount}).encode(),
        [
            ("ce_specversion", b"1.0"),
            ("ce_id", event_id.encode()),
            ("ce_source", b"/load"),
            ("ce_type", b"wallet.credited" if is_credit else b"wallet.debited"),
            ("content-type", b"application/json"),
        ],
    )


MALFORMED = [
    Wire(b"broken", b"{not json", [("content-type", b"application/cloudevents+json")]),
    Wire(b"broken", b"\xff\xfe\x00", []),
    Wire(None, None, []),
    Wire(b"broken", b'{"hello": "world"}', []),
    Wire(b"broken", b"{}", [("ce_id", b"\xff\xff"), ("ce_specversion", b"1.0")]),
]
"""Records that are no events, in turn."""


def wallet_stream(
    expected: Expected,
    count: int,
    *,
    customers: int = 500,
    duplicates: float = 0.1,
    malformed: float = 0.01,
    credits: float = 0.55,
    seed: int = 1,
) -> Iterator[Wire]:
    """Yield `count` records: distinct events, repeats of earlier ones, and bytes that are no events."""
    randomness = random.Random(seed)
    sent: list[Wire] = []
    for number in range(count):
        expected.records += 1
        draw = randomness.random()
        if draw < malformed:
            expected.malformed += 1
            yield MALFORMED[number % len(MALFORMED)]
        elif draw < malformed + duplicates and sent:
            yield randomness.choice(sent)
        else:
            customer = f"customer-{randomness.randrange(customers)}"
            amount, is_credit = randomness.randint(1, 100), randomness.random() < credits
            expected.apply(customer, amount, is_credit=is_credit)
            record = wallet_record(f"e-{seed}-{number}", customer, amount, is_credit=is_credit)
            sent.append(record)
            yield record


def produce(bootstrap: str, topic: str, records: Iterator[Wire], **config: object) -> None:
    """Send the records with librdkafka, partitioned as Java does, and wait for every acknowledgement."""
    failures: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "acks": "all",
            "enable.idempotence": True,
            "queue.buffering.max.messages": 500_000,
            "delivery.report.only.error": True,
            "on_delivery": lambda error, _: failures.append(error),
            **config,
        }
    )
    for record in records:
        while True:
            try:
                producer.produce(topic, record.value, record.key, headers=list(record.headers))
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0
    assert not failures, failures[:3]
