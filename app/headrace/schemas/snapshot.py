"""A folder of JSON Schemas, one file for each event type and version."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from headrace.errors import ConfigurationError
from headrace.event import EventType

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ABOUT = "x-headrace"
_NAME = re.compile(r"(?P<type>.+)\.v(?P<version>[0-9]{1,9})\.json")


class Kept(NamedTuple):
    """One version of an event type, as it is declared or as a file has it."""

    type: str
    version: int
    topic: str
    key: str | None
    schema: Mapping[str, Any]

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{_in_a_name(self.type)}.v{self.version}.json"


def declared(event_type: EventType) -> Kept:
    """Return a type as it is declared now."""
    schema = json.loads(json.dumps(event_type.schema()))
    return Kept(event_type.type, event_type.version, event_type.topic, event_type.key_field, _plain(schema, event_type))


def read(folder: Path) -> list[Kept]:
    """Return all files of the folder, by type and version. Raises: ConfigurationError (no folder, a wrong file)."""
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}; write it with headrace schemas export.")
    found = [_read(file) for file in folder.glob("*.json")]
    return sorted(found, key=lambda kept: (kept.type, kept.version))


def write(folder: Path, kept: Iterable[Kept]) -> list[str]:
    """Write files, and return the names of those that have changed. Raises: ConfigurationError (not writable)."""
    changed = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in kept:
            file, text = folder / each.file, _text(each)
            if not file.exists() or file.read_text(encoding="utf-8", errors="replace") != text:
                file.write_text(text, encoding="utf-8")
                changed.append(each.file)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}.") from error
    return changed


def _read(file: Path) -> Kept:
    match = _NAME.fullmatch(file.name)
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
        about = schema.pop(ABOUT)
        named = _in_a_name(about["type"]), about["version"]
        if match is None or named != (match["type"], int(match["version"])):
            raise ValueError("its name is not that of its type and version")
        schema.pop("$schema", None)
        return Kept(about["type"], about["version"], about["topic"], about["key"], schema)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{file} is no schema that headrace schemas export wrote ({error}); remove it, or restore it."
        ) from error


def _in_a_name(type_: str) -> str:
    """Return the type as the name of a file has it: no type leads into another folder."""
    return type_.replace("/", "%2F")


def _text(kept: Kept) -> str:
    about = {"type": kept.type, "version": kept.version, "topic": kept.topic, "key": kept.key}
    return json.dumps({"$schema": DIALECT, ABOUT: about, **kept.schema}, indent=2, ensure_ascii=False) + "\n"


def _plain(schema: dict[str, Any], event_type: EventType) -> dict[str, Any]:
    """Return the schema with its own definitions alone: msgspec puts the class itself among them."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name and name in schema.get("$defs", {}):
        body = schema["$defs"].pop(name)
        schema = {**body, **({"$defs": schema["$defs"]} if schema["$defs"] else {})}
    schema.setdefault("title", event_type.model.__name__)
    return schema
