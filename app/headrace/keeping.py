"""How long a state is kept, and which version its class has: `@keep(ttl=timedelta(days=30), version=2)`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from headrace.durations import is_duration
from headrace.errors import ConfigurationError

ModelT = TypeVar("ModelT", bound=type[Any])

Raise = Callable[[dict[str, Any]], dict[str, Any]]
"""The JSON object of a version -> that of the next one."""

_NAME = "__headrace_keeping__"


class Keeping:
    """What is said of the states of one class."""

    def __init__(self, name: str, ttl_seconds: float | None = None, version: int = 1) -> None:
        self.name = name
        self.ttl_seconds = ttl_seconds
        """How long a state lives after its last change; None: for ever."""
        self.version = version
        self.upcasts: dict[int, Raise] = {}
        """By the version that they bring up."""

    @property
    def ttl(self) -> timedelta | None:
        """The same as an interval."""
        return None if self.ttl_seconds is None else timedelta(seconds=self.ttl_seconds)

    def raised(self, stored: bytes, version: int) -> bytes:
        """Return the JSON of this version that was stored by an older one.

        Raises: ValueError (the version is of newer code, an upcaster raised), in one sentence.
        """
        if version > self.version:
            raise ValueError(
                f"it was written by version {version} of {self.name}, and this code has version {self.version}; update "
                "the code."
            )
        value = msgspec.json.decode(stored)
        for each in range(version, self.version):
            if (upcast := self.upcasts.get(each)) is not None:
                try:
                    value = upcast(value)
                except Exception as error:
                    raise ValueError(
                        f"the upcaster of version {each} of {self.name} raised {type(error).__name__}: {error}"
                    ) from error
        return msgspec.json.encode(value)


def keep(*, ttl: float | timedelta | None = None, version: int = 1) -> Callable[[ModelT], ModelT]:
    """Say of a state's class how long its values are kept after their last change, and which version it has.

    A state whose `ttl` (seconds, or a timedelta) is over is not there any more: the key's next event begins with the
    first value of the class. A class whose fields change in a way that old JSON does not fit gets the next `version`,
    and an upcaster of the one before: `@upcast(Wallet, version=1)`. Raises: ConfigurationError.
    """
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if seconds is not None and not is_duration(seconds):
        raise ConfigurationError(
            f"@keep(ttl={ttl!r}): ttl is a number of seconds above 0, or a timedelta, up to a hundred years."
        )
    if type(version) is not int or version < 1:
        raise ConfigurationError(f"@keep(version={version!r}): version is a number from 1 on.")

    def declare(model: ModelT) -> ModelT:
        setattr(model, _NAME, Keeping(model.__name__, seconds, version))
        return model

    return declare


def keeping_of(model: type[Any]) -> Keeping:
    """Return what is said of the states of a class; of one of which nothing is said, that it is for ever."""
    said = vars(model).get(_NAME)
    return said if isinstance(said, Keeping) else Keeping(model.__name__)
