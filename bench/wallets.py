"""The wallet events of the benchmark: as Headrace writes them, or as a foreign client does, and what they come to."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from headrace.cloudevents import encode_record
from headrace.envelope import Envelope
from tests.support.wallets import Expected, Wire, produce

Form = Literal["own", "binary"]

JSON = "application/json"
CREDIT_RATIO = 0.95
"""One debit in twenty; so some wallets are overdrawn, and Headrace emits an alert for each of those debits."""
SAMPLED_RATIO = 0.05
"""Events whose trace is kept: as many as Headrace keeps of the requests that bring it events."""

PRODUCERS: dict[Form, dict[str, object]] = {
    "own": {"compression.type": "zstd", "batch.size": 262_144, "log_level": 3},  # Headrace's own defaults
    "binary": {"log_level": 3},
}


def fill(bootstrap: str, topic: str, events: Iterable[Wire], form: Form) -> None:
    """Send the events to the topic and wait for every acknowledgement."""
    produce(bootstrap, topic, iter(events), **PRODUCERS[form])


def wallet_events(
    expected: Expected,
    count: int,
    customers: int,
    form: Form,
    *,
    is_traced: bool = True,
    note_bytes: int = 0,
    seed: int = 1,
) -> Iterator[Wire]:
    """Yield distinct wallet events and count them in `expected`; the same seed makes the same events."""
    randomness = random.Random(seed)
    for _ in range(count):
        customer = f"customer-{randomness.randrange(customers)}"
        amount, is_credit = randomness.randint(1, 100), randomness.random() < CREDIT_RATIO
        expected.apply(customer, amount, is_credit=is_credit)
        note = randomness.randbytes(note_bytes // 2).hex()
        yield wallet_event(randomness, customer, amount, form, is_credit=is_credit, is_traced=is_traced, note=note)


def wallet_event(
    randomness: random.Random,
    customer: str,
    amount: int,
    form: Form,
    *,
    is_credit: bool,
    is_traced: bool,
    note: str = "",
) -> Wire:
    """Return one event with the attributes that Headrace's ingest gives it."""
    event_id = str(uuid.UUID(int=randomness.getrandbits(128), version=4))
    kind = "wallet.credited" if is_credit else "wallet.debited"
    data = b'{"customer":"%b","amount":%d}' % (customer.encode(), amount)
    if note:
        data = b'%b,"note":"%b"}' % (data[:-1], note.encode())
    now, traceparent = datetime.now(UTC), _traceparent(randomness) if is_traced else None
    if form == "own":
        envelope = Envelope(
            id=event_id, source="/shop/load", type=kind, time=now, datacontenttype=JSON, traceparent=traceparent
        )
        record = encode_record(envelope, data, topic="", key=customer)
        return Wire(record.key, record.value, record.headers)
    headers: list[tuple[str, Any]] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", b"/shop/load"),
        ("ce_type", kind.encode()),
        ("ce_time", now.isoformat().encode()),
        ("content-type", JSON.encode()),
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    return Wire(customer.encode(), data, headers)


def _traceparent(randomness: random.Random) -> str:
    flags = 1 if randomness.random() < SAMPLED_RATIO else 0
    return f"00-{randomness.getrandbits(128):032x}-{randomness.getrandbits(64):016x}-{flags:02x}"
