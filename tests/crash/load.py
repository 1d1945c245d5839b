"""What is published: numbered events of many keys, copies, malformed records, events that make trouble.

A key gets `EACH` events and then no more, so that its list stays short however long the run is.
"""

from __future__ import annotations

import json
import random
import threading
from collections import deque
from collections.abc import Sequence

from confluent_kafka import KafkaError, Message, Producer

from tests.crash.history import Sent

KEYS = 300
"""Keys that get events at a time."""
EACH = 60
COPIES, MALFORMED, ECHOES = 0.02, 0.0005, 0.1
TROUBLES = {"fail": 0.0005, "reject": 0.0003, "block": 0.00002, "hang": 0.00001, "die": 0.00001}
"""Shares of the events."""
RECENT = 2_000
"""A copy is one of so many events before it."""
Record = tuple[bytes, bytes, Sequence[tuple[str, str | bytes | None]]]
"""Key, value and headers."""
MARK = "x-malformed"
"""A header by which the checkers know a record that is no event."""
BROKEN: list[tuple[bytes, list[tuple[str, str | bytes | None]]]] = [
    (b"{not json", [("content-type", b"application/cloudevents+json")]),
    (b"\xff\xfe\x00", []),
    (b'{"hello": "world"}', []),
    (b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/crash"), ("ce_type", b"noted")]),
]


class Load:
    """Publishes in a thread of its own, never further ahead than `allowed`."""

    def __init__(self, bootstrap: str, topic: str, seed: int, sent: Sent) -> None:
        self._topic = topic
        self._sent = sent
        self._chance = random.Random(seed)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 20,
                "acks": "all",
                "enable.idempotence": True,
                "queue.buffering.max.messages": 200_000,
                "log_level": 0,
            }
        )
        self._open: list[list[object]] = []
        self._keys = 0
        self._recent: deque[Record] = deque(maxlen=RECENT)
        self.allowed = 0
        """How many events may be out by now."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Publish no more; returns when everything that is out was acknowledged, or failed."""
        self._is_over.set()
        self._thread.join()
        left = self._producer.flush(60)
        if left:
            self._sent.failed.append(f"{left} records were not acknowledged within 60 s")

    def is_out(self, count: int) -> bool:
        """True when so many events are acknowledged."""
        return self._sent.acknowledged + len(self._sent.failed) >= count

    def wave(self, count: int) -> None:
        """Publish so many more events, without trouble. Returns when they are acknowledged."""
        self._is_over.set()
        self._thread.join()
        for _ in range(count):
            self._event(*self._next(), "", is_echoed=False)
        self._producer.flush(60)

    def _run(self) -> None:
        while not self._is_over.is_set():
            if self._sent.produced >= self.allowed:
                self._producer.poll(0.01)
                continue
            for _ in range(min(500, self.allowed - self._sent.produced)):
                self._one()
            self._producer.poll(0)

    def _one(self) -> None:
        draw, sent = self._chance.random(), self._sent
        if draw < MALFORMED:
            sent.extras["malformed"] += 1
            value, headers = self._chance.choice(BROKEN)
            self._produce(b"broken", value, [*headers, (MARK, b"1")], None)
        elif draw < MALFORMED + COPIES and self._recent:
            sent.extras["copies"] += 1
            self._produce(*self._chance.choice(self._recent), None)
        else:
            key, number = self._next()
            self._event(key, number, self._trouble(), is_echoed=self._chance.random() < ECHOES)

    def _next(self) -> tuple[str, int]:
        """Draw a key that is open, and take its next number."""
        while len(self._open) < KEYS:
            self._open.append([f"k{self._keys}", 0])
            self._keys += 1
        place = self._chance.randrange(KEYS)
        key, number = self._open[place]
        assert isinstance(key, str)
        assert isinstance(number, int)
        self._open[place][1] = number + 1
        if number + 1 == EACH:
            self._open[place] = [f"k{self._keys}", 0]
            self._keys += 1
        return key, number

    def _trouble(self) -> str:
        draw = self._chance.random()
        for trouble, share in TROUBLES.items():
            draw -= share
            if draw < 0:
                self._sent.extras[trouble] += 1
                return trouble
        return ""

    def _event(self, key: str, number: int, trouble: str, *, is_echoed: bool) -> None:
        data: dict[str, object] = {"key": key, "number": number}
        if trouble:
            data["trouble"] = trouble
        if is_echoed:
            data["echoes"] = True
        headers: list[tuple[str, str | bytes | None]] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{key}/{number}".encode()),
            ("ce_source", b"/crash"),
            ("ce_type", b"noted"),
            ("content-type", b"application/json"),
        ]
        record: Record = (key.encode(), json.dumps(data).encode(), headers)
        self._recent.append(record)
        self._sent.produced += 1
        self._produce(*record, key)

    def _produce(
        self, key: bytes, value: bytes, headers: Sequence[tuple[str, str | bytes | None]], counted: str | None
    ) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._sent.failed.append(str(error))
            elif counted is not None:
                self._sent.acknowledged += 1
                self._sent.by_key[counted] += 1

        while True:
            try:
                self._producer.produce(self._topic, value, key, headers=list(headers), on_delivery=delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return
