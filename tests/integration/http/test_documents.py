"""OpenAPI and AsyncAPI are documents of the declared types: every reference leads somewhere, every example is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
from fastapi import FastAPI

from headrace.cloudevents.structured import decode_structured
from tests.integration.http.conftest import Opener

EXAMPLE_HEADERS = {"content-type": "application/cloudevents+json"}


def references(node: Any) -> Iterator[str]:
    """Every reference of the document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: Any, reference: str) -> Any:
    """What the reference leads to."""
    node = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


async def test_openapi_shows_declared_types_and_accepted_examples(platform: Opener) -> None:
    """Its examples are accepted by the routes that show them."""
    shop = await platform()
    async with shop.client() as client:
        document = (await client.get("/openapi.json")).json()
        for reference in references(document):
            assert resolve(document, reference) is not None
        events = document["paths"]["/events"]["post"]["requestBody"]["content"]
        for media_type in ("application/cloudevents+json", "application/cloudevents-batch+json", "application/json"):
            assert media_type in events
        for example in events["application/cloudevents+json"]["examples"].values():
            answer = await client.post("/events", headers=EXAMPLE_HEADERS, content=json.dumps(example["value"]))
            assert answer.status_code == 202, answer.text
        batch = events["application/cloudevents-batch+json"]["example"]
        headers = {"content-type": "application/cloudevents-batch+json"}
        assert (await client.post("/events", headers=headers, content=json.dumps(batch))).json()["accepted"] == 2
        plain = document["paths"]["/events/{type}"]["post"]
        for type_name, example in plain["requestBody"]["content"]["application/json"]["examples"].items():
            assert (await client.post(f"/events/{type_name}", json=example["value"])).status_code == 202
        types = next(p for p in plain["parameters"] if p["name"] == "type")["schema"]["enum"]
        assert types == ["wallet.credited", "wallet.overdrawn"]
        assert (await client.get("/openapi.json")).json() == document


async def test_every_problem_that_the_routes_answer_is_documented(platform: Opener) -> None:
    shop = await platform()
    async with shop.client() as client:
        document = (await client.get("/openapi.json")).json()
    assert set(document["paths"]["/events"]["post"]["responses"]) == {
        "202", "400", "401", "403", "408", "413", "415", "422", "429", "503",
    }  # fmt: skip
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_documents_follow_a_prefix_and_leave_other_routes_alone(platform: Opener) -> None:
    shop = await platform(prefix="/platform")

    @shop.app.post("/other/events")
    async def post_other() -> None: ...

    async with shop.client() as client:
        document = (await client.get("/openapi.json")).json()
        assert "requestBody" not in document["paths"]["/other/events"]["post"]
        events = document["paths"]["/platform/events"]["post"]["requestBody"]["content"]
        example = events["application/cloudevents+json"]["examples"]["wallet.credited"]["value"]
        announced = (await client.get("/platform/asyncapi.json")).json()["channels"]["http-ingest"]["address"]
        assert announced == "/platform/events"
        answer = await client.post(announced, headers=EXAMPLE_HEADERS, content=json.dumps(example))
        assert answer.status_code == 202, answer.text


async def test_documents_follow_a_mount(platform: Opener) -> None:
    shop = await platform(prefix="/platform")
    outer = FastAPI()
    outer.mount("/api", shop.app)
    transport = httpx.ASGITransport(outer)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        document = (await client.get("/api/platform/asyncapi.json")).json()
        assert document["channels"]["http-ingest"]["address"] == "/api/platform/events"
        assert (await client.get("/api/docs")).status_code == 200


ASYNCAPI = {
    "type": "object",
    "required": ["asyncapi", "info", "channels", "operations", "components"],
    "properties": {
        "asyncapi": {"const": "3.0.0"},
        "info": {"type": "object", "required": ["title", "version"]},
        "defaultContentType": {"type": "string"},
        "channels": {
            "type": "object",
            "patternProperties": {
                r"^[A-Za-z0-9._\-]+$": {
                    "type": "object",
                    "required": ["address", "messages"],
                    "properties": {"address": {"type": "string"}, "messages": {"type": "object"}, "description": {}},
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        },
        "operations": {
            "type": "object",
            "patternProperties": {
                r"^[A-Za-z0-9._\-]+$": {
                    "type": "object",
                    "required": ["action", "channel"],
                    "properties": {
                        "action": {"enum": ["send", "receive"]},
                        "channel": {"type": "object", "required": ["$ref"]},
                        "messages": {"type": "array", "items": {"type": "object", "required": ["$ref"]}},
                        "summary": {"type": "string"},
                        "bindings": {"type": "object"},
                    },
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        },
        "components": {
            "type": "object",
            "required": ["messages", "schemas"],
            "properties": {
                "messages": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "required": ["name", "payload", "headers", "contentType"],
                    },
                },
                "schemas": {"type": "object"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
"""The part of the AsyncAPI 3.0.0 schema that the document uses, as narrow."""


async def test_asyncapi_has_version_3_and_the_declared_names(platform: Opener) -> None:
    """The document has the shape of AsyncAPI 3."""
    shop = await platform()
    async with shop.client() as client:
        document = (await client.get("/asyncapi.json")).json()
    jsonschema.validate(document, ASYNCAPI)
    for reference in references(document):
        assert resolve(document, reference) is not None
    assert {channel["address"] for channel in document["channels"].values()} == {"/events", "wallets", "alerts"}
    assert set(document["components"]["messages"]) == {"wallet.credited", "wallet.overdrawn"}
    applied = document["operations"]["wallets.wallets"]
    assert applied["channel"] == {"$ref": "#/channels/topic.wallets"}
    assert applied["messages"] == [{"$ref": "#/channels/topic.wallets/messages/wallet.credited"}]
    for operation in document["operations"].values():
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"])
    credited = document["components"]["messages"]["wallet.credited"]
    payload = resolve(document, credited["payload"]["properties"]["data"]["$ref"])
    jsonschema.Draft202012Validator.check_schema(payload)
    example = credited["examples"][0]["payload"]
    jsonschema.validate(example["data"], payload)
    assert decode_structured(json.dumps(example).encode(), extensions=False)[0].type == "wallet.credited"
