"""The page of the settings, made from their fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from headrace.reference.tables import table
from headrace.settings import COMPONENTS, Settings, variables

INTRODUCTION = """\
# Settings

Every setting is an environment variable that is read once, when the process starts. All of them have a default, so
nothing has to be set. If something is wrong, the process names every fault at once, each with its variable, its value
and what is valid, and ends with exit code 1. A `HEADRACE_` variable that is not on this page is a fault as well, so
that a misspelt one is noticed.

`make docs` writes this page from the code.
"""

OPENTELEMETRY = """\
## OpenTelemetry's own

If `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) names a collector, traces are sent to it by
`http/protobuf`; if not, nothing is traced. `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
`OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_SDK_DISABLED` and the rest mean what OpenTelemetry says. If the application has
installed a tracer provider of its own, that one is used instead.
"""

KINDS: dict[Any, str] = {
    bool: "`true` or `false`",
    float: "number",
    int: "whole number",
    Path: "path",
    SecretStr: "text, kept out of logs",
    str: "text",
}
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def render() -> str:
    """Return the page."""
    components: list[type[BaseSettings]] = [Settings, *COMPONENTS.values()]
    return "\n".join([INTRODUCTION, *(_section(component) for component in components), OPENTELEMETRY])


def _section(component: type[BaseSettings]) -> str:
    what, _, meaning = (component.__doc__ or "").strip().partition(": ")
    rows = [
        (f"`{name}`", _kind(field.annotation), _default(field), _bounds(field), field.description or "")
        for name, field in _variables_of(component)
    ]
    title = f"## {what}\n\n{meaning[:1].upper()}{meaning[1:]}\n"
    return "\n".join([title, table(["variable", "type", "default", "bounds", "meaning"], rows)])


def _variables_of(component: type[BaseSettings]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield (variable, field) of one component."""
    own = {id(field) for field in component.model_fields.values()}
    return ((name, field) for name, field in variables() if id(field) in own)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(annotation))
    members = [member for member in get_args(annotation) if member is not NoneType]
    return _kind(members[0]) if members else KINDS[annotation]


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return "unset"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _bounds(field: FieldInfo) -> str:
    found = {sign: getattr(mark, sign) for mark in field.metadata for sign in LIMITS if hasattr(mark, sign)}
    return ", ".join(f"{LIMITS[sign]} {limit}" for sign, limit in found.items())
