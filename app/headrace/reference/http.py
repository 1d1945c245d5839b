"""The page of the HTTP routes, made from the application's OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from headrace.http.openapi import extend_openapi
from headrace.loading import find_platform
from headrace.reference.tables import table

INTRODUCTION = """\
# HTTP routes

The platform adds these routes to the application. A running service shows the same at `/docs`, with the declared
event types and examples, and as a document at `/openapi.json`. [Health](../operate/health.md) and
[Metrics](metrics.md) describe `/health/live`, `/health/ready` and `/metrics`.

Every refusal is answered as `application/problem+json` (RFC 9457); [Errors](errors.md#problems-over-http) lists the
problems. If API keys are in use, each route asks for a key with the right scope: see [Access](../operate/access.md).

`make docs` writes this page from the code.
"""


def render(app: FastAPI) -> str:
    """Return the page."""
    platform = find_platform(app)
    platform.registry.complete()
    bare = FastAPI()  # the application's own routes are not the platform's
    bare.include_router(platform.router)
    document = extend_openapi(bare.openapi(), platform.registry)
    routes = [(method, path, route) for path, methods in document["paths"].items() for method, route in methods.items()]
    return "\n".join([INTRODUCTION, *(_section(*route) for route in routes)])


def _section(method: str, path: str, route: dict[str, Any]) -> str:
    return "\n".join([f"## {route['summary']}", "", f"`{method.upper()} {path}`", "", *_parts(route)])


def _parts(route: dict[str, Any]) -> Iterator[str]:
    yield f"{route.get('description', '')}\n"
    if body := route.get("requestBody"):
        yield f"The body is {' or '.join(f'`{media_type}`' for media_type in body['content'])}.\n"
    if parameters := route.get("parameters"):
        yield table(
            ["parameter", "in", "value", "meaning"],
            [(f"`{p['name']}`", p["in"], _schema(p["schema"]), p.get("description", "")) for p in parameters],
        )
    answers = sorted(route["responses"].items())
    yield table(["status", "meaning"], [(status, _meaning(answer)) for status, answer in answers])


def _meaning(answer: dict[str, Any]) -> str:
    text = str(answer["description"]).replace("Successful Response", "The answer.")
    return f"{text} `Retry-After` says when to ask again." if "Retry-After" in answer.get("headers", {}) else text


def _schema(schema: dict[str, Any]) -> str:
    """Return the values of a parameter in words."""
    members = [member for member in schema.get("anyOf", ()) if member.get("type") != "null"]
    if members:
        return _schema(members[0])
    if "enum" in schema:
        shown = " or ".join(f"`{value}`" for value in schema["enum"])
    elif schema.get("type") == "array":
        shown = f"{_schema(schema['items'])}, may be repeated"
    else:
        shown = str(schema.get("format") or schema.get("type", "any"))
    limits = [
        f"{word} {schema[name]}" for name, word in (("minimum", "at least"), ("maximum", "at most")) if name in schema
    ]
    default = [f"default `{schema['default']}`"] if schema.get("default") is not None else []
    return ", ".join([shown, *limits, *default])
