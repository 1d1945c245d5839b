"""How the state of an aggregate is kept in a snapshot: Pydantic models, msgspec Structs and dataclasses."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import msgspec
from pydantic import BaseModel, TypeAdapter

from headrace.errors import ConfigurationError


class StateCodec:
    """The state's class: what a new one is, and its JSON."""

    def __init__(self, aggregate: str, model: Any, version: int) -> None:
        """Raises: ConfigurationError (not a model, or one whose fields have no defaults)."""
        where = f"{aggregate}: Aggregate[{getattr(model, '__name__', model)}]"
        is_model = isinstance(model, type) and (
            issubclass(model, (BaseModel, msgspec.Struct)) or dataclasses.is_dataclass(model)
        )
        if not is_model:
            raise ConfigurationError(f"{where}: a state is a Pydantic model, a msgspec.Struct or a dataclass.")
        self.model: type[Any] = model
        try:
            self.create()
        except Exception as error:
            raise ConfigurationError(
                f"{where}: {model.__name__}() must work, since a new one starts from it: give every field a default."
            ) from error
        self._adapter = None if issubclass(model, msgspec.Struct) else TypeAdapter(model)
        self._version = version
        self._revision: str | None = None

    @property
    def revision(self) -> str:
        """What names the code that a snapshot is made by: the class's fields, and the aggregate's `version`."""
        if self._revision is None:
            schema = msgspec.json.schema(self.model) if self._adapter is None else self._adapter.json_schema()
            fields = msgspec.json.encode(schema, order="sorted")
            self._revision = f"{self._version}-{hashlib.blake2b(fields, digest_size=8).hexdigest()}"
        return self._revision

    def create(self) -> Any:
        """Return the state of a new aggregate."""
        return self.model()

    def encode(self, state: Any) -> str | None:
        """Return the JSON of a state; None if it would not come back as it is, so that it must not be kept."""
        try:
            raw = msgspec.json.encode(state) if self._adapter is None else self._adapter.dump_json(state, by_alias=True)
            return raw.decode() if self.decode(raw) == state else None
        except Exception:
            return None

    def decode(self, raw: bytes) -> Any:
        """Return the state of its JSON. Raises: what the class raises."""
        if self._adapter is None:
            return msgspec.json.decode(raw, type=self.model)
        return self._adapter.validate_json(raw)
