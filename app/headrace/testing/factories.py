"""Valid events from their types, by polyfactory: `build(WalletCredited, customer="ada")`."""

from __future__ import annotations

import random
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel

from headrace.errors import ConfigurationError, SchemaError
from headrace.event import event_type_of

T = TypeVar("T")

MOST_TRIES = 20
MOST_LENGTH = 4
"""Of texts and lists that may be longer, unless they must."""


class Build:
    """Builds events and states; the same seed gives the same ones."""

    def __init__(self, seed: str | int = 0) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - seeded, so that a test can be repeated
        self._factories: dict[type[Any], Any] = {}

    def __call__(self, model: type[T], **given: Any) -> T:
        """Return an object of the class whose other fields are made up within what their types allow.

        Raises: ConfigurationError (polyfactory is not installed, or it finds no value that the class takes).
        """
        factory = self._factories.get(model) or self._factory(model)
        event_type = event_type_of(model)
        error: Exception | None = None
        for _ in range(MOST_TRIES):
            try:
                made: T = factory.build(**given)
                return made if event_type is None else event_type.decode(event_type.encode(made))
            except (ValueError, SchemaError) as refused:
                error = refused
        raise ConfigurationError(
            f"build({model.__name__}): no value was found that its checks take ({error}); give the field."
        ) from error

    def _factory(self, model: type[Any]) -> Any:
        try:
            from polyfactory.factories.msgspec_factory import MsgspecFactory
            from polyfactory.factories.pydantic_factory import ModelFactory
        except ModuleNotFoundError as error:
            raise ConfigurationError('build needs polyfactory: pip install "headrace[testing]".') from error
        base: Any = None
        if issubclass(model, BaseModel):
            base = ModelFactory
        elif issubclass(model, msgspec.Struct):
            base = MsgspecFactory
        else:
            raise ConfigurationError(f"build({model.__name__}): it is no pydantic.BaseModel and no msgspec.Struct.")

        class Small(base):  # type: ignore[misc] # it is one of two classes of the library
            """Short texts and lists, which a person can read."""

            __is_base_factory__ = True
            __random__ = self._chance

            @classmethod
            def get_constrained_field_value(cls, annotation: Any, field_meta: Any, *arguments: Any, **more: Any) -> Any:
                limits = field_meta.constraints
                if limits and (most := limits.get("max_length")) is not None:
                    least = limits.get("min_length") or 0
                    limits["max_length"] = min(most, max(least, MOST_LENGTH))
                return super().get_constrained_field_value(annotation, field_meta, *arguments, **more)

        made = Small.create_factory(model, __random__=self._chance)
        self._factories[model] = made
        return made
