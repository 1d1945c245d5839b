"""The part of the chart's schema that follows from the settings: `python -m tests.charts.settings_schema` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from headrace.settings import COMPONENTS, Settings, variables

SCHEMA = Path(__file__).parents[2] / "charts" / "headrace" / "values.schema.json"

FROM_OTHER_VALUES = {
    *("HEADRACE_LOG", "HEADRACE_DATA_DIR", "HEADRACE_ROLE", "HEADRACE_SUBSCRIPTIONS", "HEADRACE_API_KEYS_FILE"),
    *("HEADRACE_MANAGEMENT_HOST", "HEADRACE_MANAGEMENT_PORT", "HEADRACE_INGEST_ALLOW_UNAUTHENTICATED"),
    *("HEADRACE_DATABASE", "HEADRACE_DATABASE_PASSWORD_FILE", "HEADRACE_DATABASE_POOL_SIZE"),
    *("HEADRACE_DATABASE_MIGRATE_ON_START", "HEADRACE_ENGINE_DRAIN_SECONDS"),
    *("HEADRACE_KAFKA_SECURITY_PROTOCOL", "HEADRACE_KAFKA_SASL_MECHANISM", "HEADRACE_KAFKA_USERNAME"),
    *("HEADRACE_KAFKA_PASSWORD_FILE", "HEADRACE_KAFKA_TLS_CA_FILE", "HEADRACE_KAFKA_TLS_CERT_FILE"),
    *("HEADRACE_KAFKA_TLS_KEY_FILE", "HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS", "HEADRACE_KAFKA_HEARTBEAT_SECONDS"),
    *("HEADRACE_KAFKA_MAX_POLL_SECONDS", "HEADRACE_KAFKA_CLIENT_RACK"),
}
"""Settings that the chart sets from values with names of their own."""

NEVER = {"HEADRACE_DATABASE_PASSWORD", "HEADRACE_KAFKA_PASSWORD", "HEADRACE_SCHEMA_REGISTRY_PASSWORD"}
"""Passwords come from Secrets, as files."""


def settings_schema() -> dict[str, Any]:
    """Return the schema of the value `settings`: every other setting, with its type and its bounds."""
    fields: dict[str, Any] = {}
    components: list[type[BaseSettings]] = [Settings, *COMPONENTS.values()]
    for component in components:
        prefix = component.model_config.get("env_prefix", "")
        for name, about in component.model_json_schema()["properties"].items():
            fields[f"{prefix}{name}".upper()] = about
    names = [name for name, _ in variables() if name not in FROM_OTHER_VALUES | NEVER]
    properties = {name: _plain(fields[name]) for name in names}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _plain(about: dict[str, Any]) -> dict[str, Any]:
    """Return what Helm needs of a field: a setting that may be absent is left out, not null."""
    if "anyOf" in about:
        about = about | next(each for each in about["anyOf"] if each.get("type") != "null")
    return {key: value for key, value in about.items() if key not in ("anyOf", "default", "title", "format")}


def main() -> None:
    schema = json.loads(SCHEMA.read_text())
    schema["definitions"]["settings"] = settings_schema()
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n")


if __name__ == "__main__":
    main()
