"""Reads the environment: every fault at once, with its variable, its value and what is valid."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from headrace.errors import ConfigurationError
from headrace.settings.database import DatabaseSettings
from headrace.settings.engine import EngineSettings
from headrace.settings.ingest import IngestSettings
from headrace.settings.kafka import KafkaSettings
from headrace.settings.platform import PREFIX, Settings
from headrace.settings.schema_registry import SchemaRegistrySettings

_SERVICE_LINK = re.compile(r"HEADRACE(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_[A-Z0-9_]+)")
_PORT_LINK = re.compile(r"(tcp|udp|sctp)://")
"""The value of `HEADRACE_..._PORT` as Kubernetes injects it; a name alone could be a misspelt setting."""

COMPONENTS: dict[str, type[BaseSettings]] = {
    "kafka": KafkaSettings,
    "database_options": DatabaseSettings,
    "engine": EngineSettings,
    "ingest": IngestSettings,
    "schema_registry": SchemaRegistrySettings,
}


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the environment. Raises: ConfigurationError that lists every fault, one a line."""
    faults = [f"{name}: no such setting{_closest(name)}" for name in _unknown_variables()]
    parts: dict[str, Any] = {}
    for field, component in COMPONENTS.items():
        try:
            parts[field] = component()
        except ValidationError as error:
            faults += _explain(component, error)
            parts[field] = component.model_construct()  # its defaults, so that the others are checked, too
    try:
        settings = Settings(**parts, **(overrides or {}))
    except ValidationError as error:
        faults += _explain(Settings, error)
    except SettingsError:
        pass  # a variable with a component's name, HEADRACE_KAFKA: no such setting, and named above
    if len(faults) == 1:
        raise ConfigurationError(f"a setting is wrong: {faults[0]}")
    if faults:
        raise ConfigurationError("the settings are wrong:\n  " + "\n  ".join(faults))
    return settings


def variables() -> Iterator[tuple[str, Any]]:
    """Yield (variable, field) of every setting, for the reference and the chart's test."""
    components: list[type[BaseSettings]] = [Settings, *COMPONENTS.values()]
    for component in components:
        prefix = component.model_config.get("env_prefix", "")
        for name, field in component.model_fields.items():
            if name not in COMPONENTS:
                yield f"{prefix}{name}".upper(), field


def _unknown_variables() -> list[str]:
    known = {name for name, _ in variables()}
    return [
        given
        for given, value in os.environ.items()
        if (name := given.upper()).startswith(PREFIX)  # settings are read whatever the case of their names
        and not name.startswith("HEADRACE_TEST_")
        and name not in known
        and not _SERVICE_LINK.fullmatch(name)
        and not (name.endswith("_PORT") and _PORT_LINK.match(value))
    ]


def _closest(name: str) -> str:
    tails = {known.removeprefix(PREFIX): known for known, _ in variables()}
    found = difflib.get_close_matches(name.upper().removeprefix(PREFIX), tails, n=1)
    return f"; did you mean {tails[found[0]]}?" if found else ""


def _explain(component: type[BaseSettings], error: ValidationError) -> list[str]:
    prefix = component.model_config.get("env_prefix", "")
    faults = []
    for fault in error.errors(include_url=False):
        if not fault["loc"]:
            faults.append(str(fault["msg"]).removeprefix("Value error, "))
            continue
        name = str(fault["loc"][0])
        field = component.model_fields.get(name)
        secret = field is not None and "Secret" in str(field.annotation)
        value = "" if secret else f"={fault['input']!r}"
        faults.append(f"{prefix}{name}".upper() + f"{value}: {fault['msg']}")
    return faults
