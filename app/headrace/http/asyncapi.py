"""Describes the declared types, topics and subscriptions as an AsyncAPI 3.0 document: `GET /asyncapi.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from headrace.http.database import json_response
from headrace.http.guard import require
from headrace.http.openapi import BATCHED, PLAIN, POST_EVENTS_ID, STRUCTURED
from headrace.http.runtime_of import runtime_of
from headrace.http.schemas import add_schema, component_name, data_example, sorted_types
from headrace.http.sends import senders

if TYPE_CHECKING:
    from headrace.event import EventType
    from headrace.registry import Registry

ASYNCAPI = "headrace_asyncapi"
"""The name of the route, by which its address is found under any prefix."""
HTTP = "http-ingest"
"""The channel of events that come in over HTTP. No topic clashes with it, since theirs carry the prefix `topic.`."""


def add_routes(router: APIRouter) -> None:
    """Add the route."""

    @router.get("/asyncapi.json", name=ASYNCAPI, summary="AsyncAPI document", dependencies=[Depends(require("read"))])
    async def get_asyncapi(request: Request) -> Response:
        """Return what the service takes in, which subscriptions handle it, and what they send."""
        return json_response(build_asyncapi(runtime_of(request).registry, request.url_for(POST_EVENTS_ID).path))


def build_asyncapi(registry: Registry, events_path: str) -> dict[str, Any]:
    """Return the document; `events_path` is where the application serves `POST /events`.

    Source: AsyncAPI 3.0.0; bindings http 0.3.0, kafka 0.5.0.
    """
    types = list(sorted_types(registry.types))
    public = [event_type for event_type in types if not event_type.is_internal]
    schemas: dict[str, Any] = {}
    messages = {component_name(event_type.type): _message(event_type, schemas) for event_type in types}
    topics = {
        _channel(topic): {
            "address": topic,
            "description": "A topic of the log; events of one key are in one partition, in order.",
            "messages": _message_references([each for each in types if each.topic == topic]),
        }
        for topic in registry.topics
    }
    ingest = {
        "address": events_path,
        "description": "CloudEvents over HTTP: structured, batched or binary mode. 202 once the log has them.",
        "messages": _message_references(public),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": registry.service,
            "version": "1.0.0",
            "description": f"The events of {registry.service}: CloudEvents 1.0, applied once, in order per key.",
        },
        "defaultContentType": PLAIN,
        "channels": {HTTP: ingest, **topics},
        "operations": {"accept": _accept(public, events_path), **_subscriptions(registry), **_sends(registry)},
        "components": {"messages": messages, "schemas": schemas},
    }


def _message(event_type: EventType, schemas: dict[str, Any]) -> dict[str, Any]:
    example = data_example(event_type)
    message: dict[str, Any] = {
        "name": event_type.type,
        "title": event_type.model.__name__,
        "contentType": STRUCTURED,
        "headers": {"type": "object", "properties": {"content-type": {"const": STRUCTURED}}},
        "payload": _payload(event_type, add_schema(event_type, schemas)),
    }
    documentation = (event_type.model.__doc__ or "").strip()
    if documentation:
        message["description"] = documentation
    if example is not None:
        message["examples"] = [
            {"payload": {"specversion": "1.0", "id": "1", "source": "/", "type": event_type.type, "data": example}}
        ]
    return message


def _payload(event_type: EventType, data: str) -> dict[str, Any]:
    """The event as the platform writes it, in structured mode; binary mode is read as well."""
    text = {"type": "string", "minLength": 1}
    dataschema = {} if event_type.dataschema is None else {"dataschema": {"const": event_type.dataschema}}
    return {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text,
            "source": text,
            "type": {"const": event_type.type},
            **dataschema,
            "subject": text,
            "time": {"type": "string", "format": "date-time"},
            "partitionkey": text,
            "traceparent": text,
            "correlationid": text,
            "causationid": text,
            "data": {"$ref": data},
        },
    }


def _accept(types: list[EventType], events_path: str) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{HTTP}"},
        "summary": f"POST {events_path} takes {STRUCTURED}, {BATCHED}, or {PLAIN} with ce-* headers.",
        "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
        "messages": [_in_channel(HTTP, event_type) for event_type in types],
    }


def _subscriptions(registry: Registry) -> dict[str, Any]:
    operations = {}
    for name, subscription in sorted(registry.subscriptions.items()):
        for topic in subscription.topics:
            handled = [each for each in sorted_types(subscription.event_types) if each.topic == topic]
            operations[component_name(f"{name}.{topic}")] = {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{_channel(topic)}"},
                "summary": f"The subscription {name} applies these events, each once.",
                "bindings": {"kafka": {"groupId": {"const": subscription.group}, "bindingVersion": "0.5.0"}},
                "messages": [_in_channel(_channel(topic), event_type) for event_type in handled],
            }
    return operations


def _sends(registry: Registry) -> dict[str, Any]:
    operations = {}
    for sender in senders(registry):
        for topic in sorted({event_type.topic for event_type in sender.types}):
            sent = [event_type for event_type in sender.types if event_type.topic == topic]
            operations[component_name(f"{sender.name}.{topic}.send")] = {
                "action": "send",
                "channel": {"$ref": f"#/channels/{_channel(topic)}"},
                "summary": sender.summary,
                "messages": [_in_channel(_channel(topic), event_type) for event_type in sent],
            }
    return operations


def _message_references(types: list[EventType]) -> dict[str, Any]:
    names = [component_name(event_type.type) for event_type in types]
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _in_channel(channel: str, event_type: EventType) -> dict[str, str]:
    return {"$ref": f"#/channels/{channel}/messages/{component_name(event_type.type)}"}


def _channel(topic: str) -> str:
    return component_name(f"topic.{topic}")
