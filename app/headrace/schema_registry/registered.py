"""What a registry answers about a schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Registered(NamedTuple):
    """A schema as it is in the registry."""

    kind: str
    """`AVRO`, `PROTOBUF` or `JSON`."""
    text: str
    references: Mapping[str, str] = {}
    """The schemas that it refers to, by the name that it does so by; each comes after those that it refers to."""
