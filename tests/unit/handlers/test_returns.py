"""A return annotation names what a handler emits; what cannot be emitted is refused at import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from typing import Annotated, Any, NoReturn, TypeVar, Union

import msgspec
import pytest
from pydantic import BaseModel

from headrace import Event, event
from headrace.errors import ConfigurationError
from headrace.handlers.signature import Signature
from headrace.registry import Registry


class Credited(Event, type="credited", topic="wallets", key="customer"):
    customer: str


@event(type="mailed", topic="mails")
class Mailed(msgspec.Struct):
    customer: str


class Base(Event):
    pass


class Paid(Base, type="paid", topic="wallets"):
    pass


class Undeclared(Event):
    customer: str


class Plain(BaseModel):
    pass


AnyEvent = TypeVar("AnyEvent", bound=Event)


def returning(annotation: Any) -> Callable[..., Any]:
    """Return a handler with that return annotation."""

    def handler(event: Credited) -> Any: ...

    handler.__annotations__ = {"event": Credited, "return": annotation}
    return handler


@pytest.mark.parametrize(
    ("annotation", "models"),
    [
        (None, ()),
        (Any, ()),
        (NoReturn, ()),
        (list, ()),
        (AnyEvent, ()),
        (Credited, (Credited,)),
        (Union[Credited, None], (Credited,)),  # noqa: UP007
        (Credited | Mailed | None, (Credited, Mailed)),
        (list[Credited], (Credited,)),
        (list[Credited | Mailed] | None, (Credited, Mailed)),
        (tuple[Credited, Mailed], (Credited, Mailed)),
        (tuple[Credited, ...], (Credited,)),
        (Iterable[Mailed], (Mailed,)),
        (Iterator[Mailed | None], (Mailed,)),
        (Sequence[Mailed], (Mailed,)),
        (Generator[Mailed, None, str], (Mailed,)),
        (Annotated[Credited, "the answer"], (Credited,)),
        (list[Event], (Event,)),
        (Base, (Base,)),
        (list[Any], ()),
    ],
)
def test_return_annotation_names_what_is_emitted(annotation: Any, models: tuple[type[Any], ...]) -> None:
    assert Signature(returning(annotation)).emits == models


def test_missing_return_annotation_is_fine() -> None:
    def handler(event: Credited): ...  # type: ignore[no-untyped-def]

    assert Signature(handler, locals()).emits == ()


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (int, "int"),
        (Plain, "Plain"),
        (list[int], "int"),
        (Credited | int, "int"),
        (dict[str, Credited], "dict"),
        (set[Credited], "set"),
        (Awaitable[Credited], "Awaitable"),
        (AsyncIterator[Credited], "AsyncIterator"),
        (bool, "bool"),
        ([Credited], "[<class"),
    ],
)
def test_what_cannot_be_emitted_is_refused_at_import(annotation: Any, shown: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Signature(returning(annotation))
    assert f"handler: the return annotation names {shown}" in str(refused.value)
    assert str(refused.value).endswith("cannot be emitted; a handler returns None, an event, or a list of events.")


def test_annotation_that_cannot_be_read_is_refused_at_import() -> None:
    def handler(event: Credited) -> None: ...

    handler.__annotations__["event"] = "pytest.nothing"
    with pytest.raises(ConfigurationError, match="handler: an annotation cannot be read: module 'pytest' has"):
        Signature(handler)


@pytest.mark.parametrize(
    ("annotation", "advice"),
    [
        (Undeclared, r"it returns Undeclared, .* declare it as class Undeclared\(Event, type="),
        (list[Mailed], r"it returns Mailed, which the service does not declare; write events\.declare\(Mailed\)\."),
        (Base, r"it returns Base, which the service does not declare"),
    ],
)
def test_returned_event_that_nobody_declared_is_refused_at_start(annotation: Any, advice: str) -> None:
    registry = Registry("shop")
    registry.add_subscription("wallets", "earliest").on(Credited)(returning(annotation))
    with pytest.raises(ConfigurationError, match=r"subscription 'wallets', handler .*handler: " + advice):
        registry.complete()


def test_returned_event_may_be_declared_anywhere() -> None:
    registry = Registry("shop")
    registry.add_type(Mailed)
    registry.add_type(Paid)
    wallets = registry.add_subscription("wallets", "earliest")
    wallets.on(Credited)(returning(list[Mailed] | Base | None))
    registry.complete()
