"""How a state's class goes to and from JSON."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import msgspec
from pydantic import BaseModel

from headrace.errors import ConfigurationError


class StateType:
    """One state of a subscription: its name (the class's, in lower case), and its JSON form."""

    __slots__ = ("create", "decode", "encode", "model", "name")

    def __init__(self, model: type[Any]) -> None:
        self.model = model
        self.name = model.__name__.lower()
        self.create: Callable[[], Any] = model
        """A new value, for a key never seen."""
        self.decode: Callable[[bytes], Any]
        """JSON bytes -> value."""
        self.encode: Callable[[Any], bytes]
        """Value -> JSON bytes."""
        if issubclass(model, BaseModel):
            validator, serializer = model.__pydantic_validator__, model.__pydantic_serializer__
            self.decode = validator.validate_json
            self.encode = serializer.to_json
        elif issubclass(model, msgspec.Struct):
            self.decode = msgspec.json.Decoder(model).decode
            self.encode = msgspec.json.encode
        else:
            raise ConfigurationError(
                f"State[{model.__name__}]: a state is a pydantic.BaseModel or a msgspec.Struct; "
                f"make {model.__name__} one."
            )
        try:
            self.create()
        except Exception as error:
            raise ConfigurationError(
                f"State[{model.__name__}]: {model.__name__}() must work, since a new key starts from it: "
                "give every field a default."
            ) from error

    def copy(self, value: Any) -> Any:
        """Return a value that shares nothing with the given one; one with a part that has no copy goes through JSON."""
        try:
            return deepcopy(value)
        except Exception:
            return self.decode(self.encode(value))
