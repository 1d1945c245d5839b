"""Reads Protobuf's bytes with the schema that they were written with, which `protoc` compiles in a process of its own.

Registries answer with the text of a schema. Some serializers register a descriptor in base64 instead, which some
registries answer with as it is.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from headrace.errors import DecodeError, SchemaRegistryError
from headrace.schema_registry.framing import zigzag
from headrace.schema_registry.registered import Registered

COMPILE_SECONDS = 30.0

MAIN = "headrace_registered_schema.proto"
"""The file of the schema itself, which a registry does not name."""

FIRST = (0,)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def protobuf_reader(schema: Registered) -> Callable[[bytes], tuple[str, Any]]:
    """Return what reads bytes as (full name of the message, its fields by name).

    Raises: DecodeError (the schema is wrong), SchemaRegistryError (it was not compiled in time).
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    files = descriptor_pb2.FileDescriptorSet.FromString(_compile(schema)).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    (main,) = (file for file in files if file.name == MAIN)
    names = dict(_names(main.message_type, f"{main.package}." if main.package else "", ()))
    classes = {
        at: (name, message_factory.GetMessageClass(pool.FindMessageTypeByName(name))) for at, name in names.items()
    }

    def decode(data: bytes) -> tuple[str, Any]:
        indexes, at = _indexes(data)
        if (found := classes.get(indexes)) is None:
            raise DecodeError(f"the schema has no message {list(indexes)}.")
        name, message = found
        return name, _fields(message.FromString(data[at:]))

    return decode


def _compile(schema: Registered) -> bytes:
    """Return the FileDescriptorSet of a schema and all that it imports."""
    with tempfile.TemporaryDirectory(prefix="headrace-schema-") as folder:
        known, made = Path(folder, "known"), Path(folder, "made")
        known.write_bytes(_write(schema, Path(folder)))
        command = [sys.executable, "-P", "-m", "grpc_tools.protoc", f"--proto_path={folder}", "--include_imports"]
        if known.stat().st_size > 0:
            command.append(f"--descriptor_set_in={known}")
        try:
            told = subprocess.run(
                [*command, f"--descriptor_set_out={made}", MAIN],
                capture_output=True,
                text=True,
                timeout=COMPILE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SchemaRegistryError(f"protoc has not compiled a schema within {COMPILE_SECONDS:g} s.") from error
        if told.returncode != 0:
            raise DecodeError(f"protoc does not compile it: {' '.join(told.stderr.split())}")
        return made.read_bytes()


def _write(schema: Registered, folder: Path) -> bytes:
    """Write the texts of a schema and of what it refers to as files; return what are no texts, but descriptors."""
    from google.protobuf import descriptor_pb2

    described = descriptor_pb2.FileDescriptorSet()
    for name, text in {**schema.references, MAIN: schema.text}.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DecodeError(f"it refers to {name!r}, which is no name of a file to import.")
        try:
            file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
        except ValueError:  # a text has spaces, and is no base64
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        else:
            file.name = name
            described.file.append(file)
    return bytes(described.SerializeToString())


def _names(messages: Iterable[Any], prefix: str, above: tuple[int, ...]) -> Iterable[tuple[tuple[int, ...], str]]:
    """Yield (place, full name) of messages and of those within them."""
    for index, message in enumerate(messages):
        place = (*above, index)
        yield place, prefix + message.name
        yield from _names(message.nested_type, f"{prefix}{message.name}.", place)


def _indexes(data: bytes) -> tuple[tuple[int, ...], int]:
    """Return which message of its file a record is, and where the message begins."""
    count, at = zigzag(data, 0)
    if count == 0:
        return FIRST, at
    if not 0 < count <= len(data):
        raise DecodeError(f"the record names its message with {count} numbers.")
    indexes = []
    for _ in range(count):
        index, at = zigzag(data, at)
        indexes.append(index)
    return tuple(indexes), at


def _fields(message: Any) -> Any:
    """Return a message's fields by name; one that can be missing, and is, is left out."""
    descriptor = message.DESCRIPTOR
    if (known := _WELL_KNOWN.get(descriptor.full_name)) is not None:
        return known(message)
    fields: dict[str, Any] = {}
    for field in descriptor.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value, of = getattr(message, field.name), field.message_type
        if of is not None and of.GetOptions().map_entry:
            fields[field.name] = {_key(key): _value(of.fields_by_name["value"], each) for key, each in value.items()}
        elif field.is_repeated:
            fields[field.name] = [_value(field, each) for each in value]
        else:
            fields[field.name] = _value(field, value)
    return fields


def _key(key: Any) -> Any:
    """Return a map's key as JSON can have it, as Protobuf's own JSON does."""
    return str(key).lower() if isinstance(key, bool) else key


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _fields(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return value


def _timestamp(message: Any) -> datetime:
    return EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def _duration(message: Any) -> timedelta:
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def _wrapped(message: Any) -> Any:
    return message.value


def _as_json(message: Any) -> Any:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message)


_WRAPPERS = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
_WELL_KNOWN: dict[str, Callable[[Any], Any]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _as_json,
    "google.protobuf.Value": _as_json,
    "google.protobuf.ListValue": _as_json,
    **{f"google.protobuf.{name}Value": _wrapped for name in _WRAPPERS},
}
