"""Describes the platform's routes in OpenAPI: the generic part at the routes, the types once they are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.http.problems import MEDIA_TYPE
from headrace.http.schemas import Schema, add_schema, component_name, data_example, sorted_types

if TYPE_CHECKING:
    from headrace.event import EventType
    from headrace.registry import Registry

POST_EVENTS_ID = "headrace_post_events"
"""The operation id of `POST /events`, by which the document finds it under any prefix."""
POST_DATA_ID = "headrace_post_data"
"""The operation id of `POST /events/{type}`."""
PLATFORM_TAGS = {"events", "queries"}
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
PLAIN = "application/json"

Responses = dict[int | str, dict[str, Any]]
"""Status -> what OpenAPI says of the answer."""

PROBLEM_SCHEMA: Schema = {
    "title": "Problem",
    "description": "RFC 9457: what went wrong. Programs branch on `type`.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "examples": ["/problems/schema"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "description": "The events, or the parameters, that are at fault.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer", "description": "The event's place in the request, from 0."},
                    "location": {"type": "string", "description": "The field, as a path with dots."},
                    "message": {"type": "string"},
                },
            },
        },
    },
}


def problem(description: str, *, retry_after: bool = False) -> dict[str, Any]:
    """Return the OpenAPI response of a problem."""
    response: dict[str, Any] = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if retry_after:
        response["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return response


OF_EVERY_ROUTE: Responses = {
    401: problem("No API key, or an unknown one."),
    403: problem("The API key lacks the route's scope."),
    503: problem("Postgres or the log is away, or what was asked for did not come in time.", retry_after=True),
}
"""Answers of every route that reads or steers."""

RESPONSES: Responses = {
    202: {
        "description": "The log has every event of the request.",
        "content": {
            PLAIN: {
                "schema": {
                    "type": "object",
                    "required": ["accepted"],
                    "properties": {
                        "accepted": {"type": "integer", "examples": [1]},
                        "ids": {
                            "description": "The events' ids, in the request's order. Left out if there are more than "
                            "100 events, unless the request has the header `Prefer: return=representation`.",
                            "type": "array",
                            "items": {"type": "string"},
                        },
                        "positions": {
                            "description": "Where each event is in the log; given if `ids` are.",
                            "type": "array",
                            "items": {"type": "string", "examples": ["wallets/2/17"]},
                        },
                    },
                }
            }
        },
    },
    400: problem("Not a CloudEvent, not JSON, or an empty batch."),
    401: OF_EVERY_ROUTE[401],
    403: problem("The API key lacks the scope `publish`."),
    408: problem("The body did not come in time."),
    413: problem("The body, the batch or an event is too large."),
    415: problem("The content type is not accepted."),
    422: problem("Data that do not fit the event type, or a key that is too long; each event by its index."),
    429: problem("Too many requests wait for the log, or the caller has published more than it may.", retry_after=True),
    503: problem("The log is away. Sending the same event ids again is safe.", retry_after=True),
}

POST_EVENTS: dict[str, Any] = {
    "requestBody": {"required": True, "content": {STRUCTURED: {"schema": {"type": "object"}}}},
}
POST_DATA: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Becomes the event's id: a second request with the same key to the same type has no second "
            "effect.",
            "schema": {"type": "string"},
        }
    ],
    "requestBody": {"required": True, "content": {PLAIN: {"schema": {"type": "object"}}}},
}


def extend_openapi(app_openapi: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """Put the declared event types into the application's OpenAPI document, with examples; again changes nothing."""
    components = app_openapi.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = PROBLEM_SCHEMA
    components.setdefault("securitySchemes", {}).update(
        bearer={"type": "http", "scheme": "bearer", "description": "A key of HEADRACE_API_KEYS_FILE."},
        apiKey={"type": "apiKey", "in": "header", "name": "X-API-Key"},
    )
    types = [event_type for event_type in sorted_types(registry.types) if not event_type.is_internal]
    data = {event_type.type: {"$ref": add_schema(event_type, schemas)} for event_type in types}
    operations = [
        operation
        for path in app_openapi.get("paths", {}).values()
        for operation in path.values()
        if isinstance(operation, dict)
    ]
    for operation in operations:
        if PLATFORM_TAGS & set(operation.get("tags", ())):
            operation["security"] = [{}, {"bearer": []}, {"apiKey": []}]
        if operation.get("operationId") == POST_EVENTS_ID and types:
            _extend_events(operation, types, data, schemas)
        elif operation.get("operationId") == POST_DATA_ID and types:
            _extend_data(operation, types, data)
    return app_openapi


def _extend_events(operation: dict[str, Any], types: list[EventType], data: dict[str, Any], schemas: Schema) -> None:
    envelopes = []
    for event_type in types:
        name = f"{component_name(event_type.type)}.CloudEvent"
        schemas[name] = _cloud_event(event_type, data[event_type.type])
        envelopes.append({"$ref": f"#/components/schemas/{name}"})
    one, many = {"oneOf": envelopes}, {"type": "array", "items": {"oneOf": envelopes}, "minItems": 1}
    examples = {event_type.type: _example(event_type) for event_type in types}
    operation["requestBody"]["content"] = {
        STRUCTURED: {"schema": one, "examples": {name: {"value": value} for name, value in examples.items()}},
        BATCHED: {"schema": many, "example": list(examples.values())},
        PLAIN: {
            "schema": {
                "description": "Binary mode: the data alone; the attributes are `ce-*` headers.",
                "oneOf": list(data.values()),
            }
        },
    }


def _extend_data(operation: dict[str, Any], types: list[EventType], data: dict[str, Any]) -> None:
    operation["requestBody"]["content"] = {
        PLAIN: {
            "schema": {"oneOf": list(data.values())},
            "examples": {event_type.type: {"value": data_example(event_type)} for event_type in types},
        }
    }
    for parameter in operation.get("parameters", ()):
        if parameter.get("name") == "type":
            parameter["schema"]["enum"] = [event_type.type for event_type in types]


def _cloud_event(event_type: EventType, data: dict[str, Any]) -> Schema:
    text = {"type": "string", "minLength": 1}
    return {
        "title": f"CloudEvent {event_type.type}",
        "type": "object",
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {
                **text,
                "description": "Names the event, together with `source` and `type`: a second one is a duplicate.",
            },
            "source": {**text, "format": "uri-reference"},
            "type": {"const": event_type.type},
            "subject": text,
            "time": {"type": "string", "format": "date-time"},
            "partitionkey": {**text, "description": "The key that order is kept by, instead of the declared one."},
            "data": data,
        },
        "additionalProperties": True,
    }


def _example(event_type: EventType) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "0190a3c4-5d6e-7f80-9a1b-2c3d4e5f6071",
        "source": "/example",
        "type": event_type.type,
        "data": data_example(event_type),
    }
