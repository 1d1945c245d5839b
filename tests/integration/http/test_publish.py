"""Events come in: in every mode, with their key and their trace, and only what the log has is answered 202."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from headrace import Event, Headrace
from headrace.log.partitioner import partition_for
from tests.integration.http.conftest import PARTITIONS, Opener
from tests.support.platform import client, running, settings_for, until_settled
from tests.support.web import http_client

STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCHED = {"content-type": "application/cloudevents-batch+json"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def credited(event_id: str, customer: str = "ada", **attributes: object) -> dict[str, object]:
    """A CloudEvent."""
    data = {"customer": customer, "amount": 5}
    return {"specversion": "1.0", "id": event_id, "source": "/s", "type": "wallet.credited", "data": data, **attributes}


def _position(topic: str, key: str, offset: int) -> str:
    """The place of a key's event in an answer."""
    return f"{topic}/{partition_for(key.encode(), PARTITIONS)}/{offset}"


async def test_a_structured_event_is_in_the_log_with_its_key(platform: Opener) -> None:
    shop = await platform()
    async with shop.client() as client:
        answer = await client.post("/events", headers=STRUCTURED, content=json.dumps(credited("1", loyalty="gold")))
    assert answer.status_code == 202
    assert answer.json() == {"accepted": 1, "ids": ["1"], "positions": [_position("wallets", "ada", 0)]}
    ((envelope, data, key),) = await shop.records()
    assert (envelope.id, envelope.source, envelope.datacontenttype) == ("1", "/s", "application/json")
    assert envelope.extensions == {"loyalty": "gold"}
    assert isinstance(envelope.time, datetime)
    assert json.loads(data) == {"customer": "ada", "amount": 5}
    assert key == b"ada"


async def test_a_batch_is_in_the_log_over_several_topics(platform: Opener) -> None:
    shop = await platform()
    alert = {**credited("3"), "type": "wallet.overdrawn", "data": {"customer": "ada", "balance": -1}, "subject": "s"}
    batch = [credited("1"), credited("2", "bob", partitionkey="p"), alert]
    async with shop.client() as client:
        answer = await client.post("/events", headers=BATCHED, content=json.dumps(batch))
    places = [_position("wallets", "ada", 0), _position("wallets", "p", 1), _position("alerts", "s", 0)]
    assert (answer.status_code, answer.json()) == (202, {"accepted": 3, "ids": ["1", "2", "3"], "positions": places})
    assert {(e.id, key) for e, _, key in await shop.records()} == {("1", b"ada"), ("2", b"p")}
    assert {(e.id, key) for e, _, key in await shop.records("alerts")} == {("3", b"s")}
    assert shop.sample("ingest_accepted_total", topic="wallets", type="wallet.credited") == 2
    assert shop.sample("ingest_duration_seconds_count", mode="batched", outcome="accepted") == 1
    assert shop.sample("ingest_batch_events_sum", mode="batched") == 3


async def test_a_thousand_events_come_in_at_once(platform: Opener) -> None:
    shop = await platform()
    async with shop.client() as client:
        batch = [credited(str(number), f"c{number % 7}") for number in range(1_000)]
        answer = await client.post("/events", headers=BATCHED, content=json.dumps(batch))
        assert answer.json() == {"accepted": 1_000}
        headers = {**BATCHED, "Prefer": "return=representation"}
        named = (await client.post("/events", headers=headers, content=json.dumps(batch))).json()
    assert len(await shop.records()) == 2_000
    assert (named["accepted"], named["ids"]) == (1_000, [str(number) for number in range(1_000)])
    assert len(set(named["positions"])) == 1_000


async def test_a_binary_event_is_in_the_log(platform: Opener) -> None:
    shop = await platform()
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "wallet.credited"}
    async with shop.client() as client:
        answer = await client.post(
            "/events", headers={**headers, "ce-subject": "Z%C3%BCrich"}, json={"customer": "ada", "amount": 5}
        )
    assert answer.status_code == 202
    ((envelope, _, _),) = await shop.records()
    assert envelope.subject == "Zürich"


@pytest.mark.parametrize(("given", "event_id"), [("order-7", "order-7"), ('"order-7"', "order-7")])
async def test_plain_data_become_an_event_named_by_the_idempotency_key(
    platform: Opener, given: str, event_id: str
) -> None:
    shop = await platform()
    async with shop.client() as client:
        answer = await client.post(
            "/events/wallet.credited", headers={"Idempotency-Key": given}, json={"customer": "ada", "amount": 5}
        )
    assert (answer.status_code, answer.json()["ids"]) == (202, [event_id])
    ((envelope, _, key),) = await shop.records()
    assert (envelope.id, envelope.source, envelope.type, key) == (
        event_id,
        "/shop/wallet.credited",
        "wallet.credited",
        b"ada",
    )


async def test_plain_data_without_a_key_get_an_id_each(platform: Opener) -> None:
    shop = await platform()
    async with shop.client() as client:
        for _ in range(2):
            await client.post("/events/wallet.credited", json={"customer": "ada", "amount": 5})
    assert len({envelope.id for envelope, _, _ in await shop.records()}) == 2


async def test_the_requests_trace_goes_on_in_events_that_bring_none(platform: Opener) -> None:
    shop = await platform()
    own = "00-11111111111111111111111111111111-2222222222222222-00"
    batch = [credited("1"), credited("2", traceparent=own, tracestate="own=1")]
    trace = {"traceparent": PARENT, "tracestate": "shop=1"}
    async with shop.client() as client:
        await client.post("/events", headers={**BATCHED, **trace}, content=json.dumps(batch))
        await client.post("/events/wallet.credited", headers=trace | {"Idempotency-Key": "3"}, json=batch[0]["data"])
    found = {e.id: (e.traceparent, e.tracestate) for e, _, _ in await shop.records()}
    assert found == {"1": (PARENT, "shop=1"), "2": (own, "own=1"), "3": (PARENT, "shop=1")}


async def test_the_limit_holds_for_bodies_of_unknown_length(platform: Opener) -> None:
    """Over a real socket, with a chunked body."""
    shop = await platform(max_body_bytes=2_048)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1_024

    async with shop.served() as address, http_client(base_url=address) as client:
        answer = await client.post("/events", headers=STRUCTURED, content=chunks())
        assert answer.status_code == 413
        large = await client.post("/events", headers=STRUCTURED, content=b" " * 10_000_000)
        assert large.status_code == 413
        again = await client.post("/events", headers=STRUCTURED, content=json.dumps(credited("1")))
        assert again.status_code == 202
    assert len(await shop.records()) == 1


async def test_one_key_sent_to_two_types_is_two_events(database_url: str, topic_name: str) -> None:
    """An Idempotency-Key names an event of its type: another type's event with the same key is not a duplicate."""
    events = Headrace("keyed", settings_for(database_url))
    seen: list[str] = []

    class Placed(Event, type="order.placed", topic=topic_name, key="order"):
        order: str

    class Paid(Event, type="order.paid", topic=topic_name, key="order"):
        order: str

    @events.subscription("orders").on(Placed, Paid)
    def note(event: Placed | Paid) -> None:
        seen.append(type(event).__name__)

    async with running(events) as runtime, client(events) as shop:
        for type_ in ("order.placed", "order.paid", "order.paid"):
            headers = {"Idempotency-Key": "7"}
            answer = await shop.post(f"/events/{type_}", json={"order": "o"}, headers=headers)
            assert answer.status_code == 202, answer.text
        await until_settled(runtime, "orders")
    assert seen == ["Placed", "Paid"]
