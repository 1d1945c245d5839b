"""JSON Schemas of event types inside larger documents (OpenAPI, AsyncAPI), and examples made from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from headrace.errors import SchemaError
from headrace.event import EventType

Schema = dict[str, Any]

SCHEMAS = "#/components/schemas/"
_DEFINITIONS = "#/$defs/"
_FORMATS = {
    "date-time": "2031-05-06T07:08:09Z",
    "date": "2031-05-06",
    "time": "07:08:09Z",
    "duration": "PT1H",
    "uuid": "0190a3c4-5d6e-7f80-9a1b-2c3d4e5f6071",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
}


def component_name(type_name: str) -> str:
    """Return a name that is allowed as a key of components."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", type_name)


def add_schema(event_type: EventType, schemas: dict[str, Any]) -> str:
    """Put the schema of the type's data, and what it refers to, among `schemas`; return the reference to it."""
    name = component_name(event_type.type)
    schema = dict(event_type.schema())
    for definition, body in schema.pop("$defs", {}).items():
        schemas[f"{name}.{component_name(definition)}"] = _moved(body, name)
    schemas[name] = _moved(schema, name)
    return SCHEMAS + name


def data_example(event_type: EventType) -> Any:
    """Return data that the type accepts: its schema's own example, else one made up; None if it accepts neither."""
    schema = event_type.schema()
    for example in [*schema.get("examples", []), _example(schema, schema.get("$defs", {}), "value", 0)]:
        if _is_accepted(event_type, example):
            return example
    return None


def sorted_types(types: Mapping[str, EventType]) -> Iterable[EventType]:
    """Return the types by name, so that documents do not change from start to start."""
    return [types[name] for name in sorted(types)]


def _moved(schema: Any, name: str) -> Any:
    if isinstance(schema, list):
        return [_moved(part, name) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"{SCHEMAS}{name}.{component_name(value.removeprefix(_DEFINITIONS))}"
        if key == "$ref" and isinstance(value, str) and value.startswith(_DEFINITIONS)
        else _moved(value, name)
        for key, value in schema.items()
    }


def _is_accepted(event_type: EventType, example: Any) -> bool:
    try:
        event_type.decode(msgspec.json.encode(example))
    except (SchemaError, TypeError):
        return False
    return True


def _example(schema: Schema, definitions: Mapping[str, Schema], name: str, depth: int) -> Any:
    """Return a value of the schema; `name` is the property's, which makes the best text. Stops at 8 levels."""
    if depth > 8 or not isinstance(schema, dict):
        return None
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    for listed in ("examples", "enum"):
        if schema.get(listed):
            return schema[listed][0]
    if "$ref" in schema:
        target = definitions.get(str(schema["$ref"]).removeprefix(_DEFINITIONS), {})
        return _example(target, definitions, name, depth + 1)
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return _example(schema[choice][0], definitions, name, depth + 1)
    return _example_of_kind(schema, definitions, name, depth)


def _example_of_kind(schema: Schema, definitions: Mapping[str, Schema], name: str, depth: int) -> Any:
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {key: _example(value, definitions, key, depth + 1) for key, value in properties.items()}
        case "array":
            return [_example(schema.get("items", {}), definitions, name, depth + 1)]
        case "integer" | "number":
            step = schema.get("multipleOf", 1)
            lowest = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            return (lowest // step + 1) * step
        case "string":
            text = _FORMATS.get(schema.get("format", ""), f"{name}-1")
            return text.ljust(schema.get("minLength", 0), "0")[: schema.get("maxLength", 200)]
        case "boolean":
            return True
    return None
