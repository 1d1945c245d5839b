"""What is published: numbered events of many keys, copies, malformed records, events that make trouble.

A key gets `EACH` events and then no more, so that its list stays short however long the run is.
"""

from __future__ import annotations

import json
import random
import threading
from collections import deque
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, Message, Producer

from tests.crash.history import Sent
from tests.crash.plan import Plan
from tests.crash.steps import Steps

KEYS = 300
"""Keys that get events at a time."""
EACH = 60
COPIES, MALFORMED, STEPS = 0.02, 0.0005, 0.05
ASKED = {"echoes": 0.1, "reminds": 0.005, "tells": 0.01}
ORDERS = {"good": 0.003, "bad": 0.001}
TROUBLES = {"fail": 0.0005, "reject": 0.0003}
SHARES = {**ASKED, **ORDERS, **TROUBLES}
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

    def __init__(self, bootstrap: str, topic: str, plan: Plan, sent: Sent) -> None:
        self._topic = topic
        self._sent = sent
        self._chance = random.Random(plan.seed)
        self._shares = {**SHARES, **plan.shares}
        self._events = plan.events
        self._steps = Steps(self._chance)
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
        self.asked: deque[str] = deque()
        """What the next events are to ask for: a trouble, or something besides."""
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

    @property
    def is_at_its_end(self) -> bool:
        """True if no more events may be out for now."""
        return self._sent.produced >= self.allowed

    def wave(self, count: int) -> None:
        """Publish so many more events, without trouble. Returns when they are acknowledged."""
        self._is_over.set()
        self._thread.join()
        for _ in range(count):
            self._event(*self._next(), {})
        self._producer.flush(60)

    def _run(self) -> None:
        while not self._is_over.is_set():
            if self._sent.produced >= self.allowed:
                if self._sent.produced >= self._events:
                    self._step(*self._steps.rest())
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
            asked = self._asked_for()
            if asked.get("trouble") == "doom":
                self._event(key, number, {}, "doomed")
            else:
                self._event(key, number, asked)
            if self._chance.random() < STEPS:
                self._step(*self._steps.next())

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

    def _asked_for(self) -> dict[str, object]:
        """Return what somebody wants the next event to ask for, or draw it."""
        if not self.asked:
            return self._drawn()
        what = self.asked.popleft()
        self._sent.extras[what] += 1
        return {what: True} if what in ASKED else {"orders" if what in ORDERS else "trouble": what}

    def _drawn(self) -> dict[str, object]:
        asked: dict[str, object] = {what: True for what in ASKED if self._chance.random() < self._shares[what]}
        for name, shares in (("trouble", TROUBLES), ("orders", ORDERS)):
            draw = self._chance.random()
            for what in shares:
                draw -= self._shares[what]
                if draw < 0:
                    asked[name] = what
                    self._sent.extras[what] += 1
                    break
        return asked

    def _event(self, key: str, number: int, asked: Mapping[str, object], type_: str = "noted") -> None:
        """Publish an event. Two that follow each other differ in their source, and not in their id."""
        value = json.dumps({"key": key, "number": number, **asked}).encode()
        record: Record = (key.encode(), value, _headers(f"/crash/{number % 2}", f"{key}/{number // 2}", type_))
        self._recent.append(record)
        self._sent.produced += 1
        self._produce(*record, key)

    def _step(self, *steps: tuple[str, int]) -> None:
        """Publish events that are to be applied in sequence, in the order given."""
        for key, number in steps:
            self._sent.extras["steps"] += 1
            value = json.dumps({"key": key, "number": number}).encode()
            headers = _headers("/crash", f"{key}/{number}", "stepped")
            self._produce(key.encode(), value, headers, None, f"{self._topic}-steps")

    def _produce(
        self,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, str | bytes | None]],
        counted: str | None,
        topic: str | None = None,
    ) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._sent.failed.append(str(error))
            elif counted is not None:
                self._sent.acknowledged += 1
                self._sent.by_key[counted] += 1

        while True:
            try:
                self._producer.produce(topic or self._topic, value, key, headers=list(headers), on_delivery=delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return


def _headers(source: str, event_id: str, type_: str) -> list[tuple[str, str | bytes | None]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", type_.encode()),
        ("content-type", b"application/json"),
    ]
