"""Bad input gets a clear problem (RFC 9457), is counted, and leaves nothing in the log."""

from __future__ import annotations

import json
from collections.abc import Mapping

import httpx
import pytest

from headrace.log.memory import MemoryLog
from tests.integration.http.conftest import Opener, Platform

STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCHED = {"content-type": "application/cloudevents-batch+json"}
PLAIN = {"content-type": "application/json"}
BINARY = {**PLAIN, "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "wallet.credited"}
DATA = b'{"customer":"ada","amount":5}'
DEEP = b"[" * 100_000 + b"]" * 100_000
FAIRLY_DEEP = b"[" * 900 + b"]" * 900


def event(data: bytes = DATA, /, **attributes: str) -> bytes:
    """A structured event."""
    members = {"specversion": "1.0", "id": "1", "source": "/s", "type": "wallet.credited", **attributes}
    return json.dumps(members)[:-1].encode() + b',"data":' + data + b"}"


async def refused(
    shop: Platform, path: str, headers: Mapping[str, str | bytes], body: bytes, status: int, slug: str
) -> httpx.Response:
    """Post, and check that the answer is the problem and that nothing was accepted."""
    async with shop.client() as client:
        raw = [(k.encode(), v.encode() if isinstance(v, str) else v) for k, v in headers.items()]
        answer = await client.post(path, headers=raw, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"/problems/{slug}"
    assert (problem["status"], problem["instance"]) == (status, path)
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in answer.text
    assert await shop.records() == []
    assert await shop.records("alerts") == []
    assert shop.sample("ingest_accepted_total", topic="wallets", type="wallet.credited") == 0
    return answer


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "slug"),
    [
        pytest.param("/events", STRUCTURED, b"{not json", 400, "malformed", id="structured-not-json"),
        pytest.param("/events", BINARY, b"{not json", 400, "malformed", id="binary-not-json"),
        pytest.param("/events", BATCHED, b"{not json", 400, "malformed", id="batched-not-json"),
        pytest.param("/events/wallet.credited", PLAIN, b"{not json", 400, "malformed", id="plain-not-json"),
        pytest.param("/events", STRUCTURED, b"", 400, "malformed", id="structured-empty-body"),
        pytest.param("/events/wallet.credited", PLAIN, b"", 400, "malformed", id="plain-empty-body"),
        pytest.param("/events", STRUCTURED, b'{"hello":"world"}', 400, "malformed", id="json-no-cloudevent"),
        pytest.param("/events", PLAIN, DATA, 400, "malformed", id="json-without-ce-headers"),
        pytest.param("/events", STRUCTURED, event(id=""), 400, "malformed", id="empty-id"),
        pytest.param("/events", STRUCTURED, event(specversion="0.3"), 400, "malformed", id="old-version"),
        pytest.param("/events", STRUCTURED, event(time="noon"), 400, "malformed", id="bad-time"),
        pytest.param("/events", {**BINARY, "ce-id": b"\xff"}, DATA, 400, "malformed", id="header-not-utf8"),
        pytest.param("/events", STRUCTURED, event(b'"\xff"'), 400, "malformed", id="body-not-utf8"),
        pytest.param("/events", BATCHED, b"[]", 400, "malformed", id="empty-batch"),
        pytest.param("/events", BATCHED, event(), 400, "malformed", id="batch-that-is-no-array"),
        pytest.param("/events", STRUCTURED, DEEP, 400, "malformed", id="deep-structured"),
        pytest.param("/events", STRUCTURED, event(DEEP), 400, "malformed", id="deep-data"),
        pytest.param("/events", BATCHED, b"[" + event(DEEP) + b"]", 400, "malformed", id="deep-in-batch"),
        pytest.param("/events", BINARY, DEEP, 400, "malformed", id="deep-binary"),
        pytest.param("/events/wallet.credited", PLAIN, DEEP, 400, "malformed", id="deep-plain"),
        pytest.param("/events/wallet.credited", PLAIN, FAIRLY_DEEP, 422, "schema", id="fairly-deep-plain"),
        pytest.param("/events", STRUCTURED, event(type="wallet.closed"), 422, "unknown-type", id="unknown-type"),
        pytest.param("/events/wallet.closed", PLAIN, DATA, 422, "unknown-type", id="plain-unknown-type"),
        pytest.param("/events/a/b", PLAIN, DATA, 422, "unknown-type", id="unknown-type-with-slash"),
        pytest.param("/events", STRUCTURED, event(b'{"customer":7,"amount":5}'), 422, "schema", id="wrong-type"),
        pytest.param(
            "/events", STRUCTURED, event(b'{"customer":"a","amount":"5"}'), 422, "schema", id="number-as-text"
        ),
        pytest.param(
            "/events", STRUCTURED, event(b'{"customer":"a","amount":-5}'), 422, "schema", id="negative-amount"
        ),
        pytest.param("/events", STRUCTURED, event(b"null"), 422, "schema", id="null-data"),
        pytest.param("/events", BINARY, b"[]", 422, "schema", id="binary-wrong-data"),
        pytest.param("/events/wallet.credited", PLAIN, b"{}", 422, "schema", id="plain-missing-fields"),
        pytest.param("/events", {"content-type": "text/plain"}, event(), 415, "media-type", id="wrong-content-type"),
        pytest.param("/events", {}, event(), 415, "media-type", id="no-content-type"),
        pytest.param("/events/wallet.credited", {}, DATA, 415, "media-type", id="plain-no-content-type"),
        pytest.param("/events/wallet.credited", STRUCTURED, event(), 415, "media-type", id="cloudevent-as-plain"),
        pytest.param("/events", {**STRUCTURED, "content-encoding": "gzip"}, b"x", 415, "media-type", id="compressed"),
        pytest.param("/events", STRUCTURED, b" " * 10_000_000, 413, "too-large", id="ten-megabytes"),
        pytest.param(
            "/events/wallet.credited", {**PLAIN, "idempotency-key": ""}, DATA, 400, "malformed", id="empty-key"
        ),
        pytest.param(
            "/events/wallet.credited", {**PLAIN, "idempotency-key": b"\xff"}, DATA, 400, "malformed", id="bad-key"
        ),
    ],
)
async def test_bad_input_gets_its_problem(
    platform: Opener, path: str, headers: dict[str, str | bytes], body: bytes, status: int, slug: str
) -> None:
    shop = await platform()
    await refused(shop, path, headers, body, status, slug)
    reason = {400: "malformed", 422: "schema", 415: "media_type", 413: "too_large"}[status]
    assert shop.sample("ingest_rejected_total", reason=reason) >= 1


async def test_one_bad_event_refuses_its_batch(platform: Opener) -> None:
    """The answer lists each bad event."""
    shop = await platform()
    negative, unknown = event(b'{"customer":"a","amount":-5}'), event(type="wallet.closed")
    batch = b"[" + b",".join([event(), negative, event(), unknown]) + b"]"
    answer = await refused(shop, "/events", BATCHED, batch, 422, "schema")
    errors = answer.json()["errors"]
    assert [(error["index"], error["location"]) for error in errors] == [(1, "amount"), (3, "")]
    assert "greater than 0" in errors[0]["message"]
    assert "declared are: wallet.credited, wallet.overdrawn" in errors[1]["message"]
    assert answer.json()["detail"].startswith("2 of 4 events are refused, so none is accepted")
    assert shop.sample("ingest_rejected_total", reason="schema") == 4


async def test_a_batch_lists_each_item_that_is_no_event(platform: Opener) -> None:
    """The batch is malformed."""
    shop = await platform()
    answer = await refused(shop, "/events", BATCHED, b"[" + event() + b',{"hello":"world"},7]', 400, "malformed")
    assert [error["index"] for error in answer.json()["errors"]] == [1, 2]


async def test_a_batch_of_too_many_events_is_refused(platform: Opener) -> None:
    shop = await platform(max_batch_events=2)
    await refused(shop, "/events", BATCHED, b"[" + b",".join([event()] * 3) + b"]", 413, "too-large")


async def test_the_accepted_content_types_are_named(platform: Opener) -> None:
    shop = await platform()
    detail = (await refused(shop, "/events", {}, event(), 415, "media-type")).json()["detail"]
    assert "application/cloudevents+json" in detail
    assert "application/cloudevents-batch+json" in detail


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/events"), ("DELETE", "/events/wallet.credited"), ("PUT", "/subscriptions")]
)
async def test_a_wrong_method_is_a_problem_that_names_the_right_one(platform: Opener, method: str, path: str) -> None:
    shop = await platform()
    async with shop.client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/method-not-allowed"
    assert answer.headers["allow"]


async def test_a_fault_of_ours_is_a_problem_without_a_traceback(
    platform: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryLog):
        async def publish(self, records: object) -> list[object]:  # type: ignore[override]
            raise RuntimeError("a secret of the inside")

    shop = await platform(log=Broken())
    async with shop.client() as client:
        answer = await client.post("/events", headers=STRUCTURED, content=event())
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal")
    assert "inside" not in answer.text
    assert "a secret of the inside" in caplog.text
    assert shop.sample("ingest_duration_seconds_count", mode="structured", outcome="failed") == 1


LONG = {
    "id": "i" * 1_025,
    "source": "s" * 2_049,
    "type": "t" * 257,
    "subject": "u" * 2_049,
    "partitionkey": "p" * 2_049,
    "extension": "e" * 9_000,
}


@pytest.mark.parametrize("mode", ["structured", "batched", "binary"])
@pytest.mark.parametrize("name", LONG)
async def test_too_long_attributes_are_refused_in_every_mode(platform: Opener, mode: str, name: str) -> None:
    """What the log could not carry on, as the cause of an emitted event, is refused before it is accepted."""
    shop = await platform()
    value = LONG[name]
    if mode == "binary":
        headers, body = {**BINARY, f"ce-{name}": value}, DATA
    else:
        one = event(**{name: value})
        headers, body = (STRUCTURED, one) if mode == "structured" else (BATCHED, b"[" + one + b"]")
    answer = await refused(shop, "/events", headers, body, 400, "malformed")
    assert name in answer.json()["detail"]


async def test_too_many_extensions_are_refused(platform: Opener) -> None:
    shop = await platform()
    many = {f"x{number}": "1" for number in range(65)}
    await refused(shop, "/events", STRUCTURED, event(**many), 400, "malformed")
    await refused(shop, "/events", {**BINARY, **{f"ce-{name}": "1" for name in many}}, DATA, 400, "malformed")


async def test_too_long_idempotency_keys_and_types_are_refused(platform: Opener) -> None:
    shop = await platform()
    long_key = {**PLAIN, "idempotency-key": "k" * 1_025}
    answer = await refused(shop, "/events/wallet.credited", long_key, DATA, 400, "malformed")
    assert "1,024" in answer.json()["detail"]
    await refused(shop, "/events/" + "t" * 257, PLAIN, DATA, 400, "malformed")


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        pytest.param(event(b'{"customer":"' + b"c" * 513 + b'","amount":5}'), 422, "schema", id="long-key"),
        pytest.param(event(b'{"customer":"caf\\ud83d","amount":5}'), 400, "malformed", id="half-a-character"),
        pytest.param(event(partitionkey="\ud83d"), 400, "malformed", id="half-a-partitionkey"),
        pytest.param(event(subject="\ud83d"), 400, "malformed", id="half-a-subject"),
    ],
)
async def test_keys_that_no_record_can_carry_are_refused(platform: Opener, body: bytes, status: int, slug: str) -> None:
    shop = await platform()
    await refused(shop, "/events", STRUCTURED, body, status, slug)
