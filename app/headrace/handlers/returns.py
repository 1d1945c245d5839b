"""What a handler may return, read from its return annotation: nothing, events, or a verdict such as `Skip`."""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable, Hashable
from typing import Annotated, Any, Never, NoReturn, TypeVar, Union, get_args, get_origin

from typing_extensions import TypeAliasType

from headrace.errors import ConfigurationError
from headrace.event import Event, event_type_of
from headrace.handlers.verdicts import HandlerVerdict

_SEVERAL = frozenset(
    {
        list,
        tuple,
        collections.abc.Iterable,
        collections.abc.Iterator,
        collections.abc.Sequence,
        collections.abc.Generator,
    }
)
_NOTHING = frozenset({None, type(None), Any, Never, NoReturn, inspect.Parameter.empty})


def returned_models(hint: Any, name: str) -> tuple[type[Any], ...]:
    """Return the classes of events that a return annotation names.

    Raises: ConfigurationError if it names what cannot be emitted.
    """
    if isinstance(hint, TypeAliasType):
        hint = hint.__value__
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return returned_models(arguments[0], name)
    if origin in (Union, types.UnionType):
        return _of_all(arguments, name)
    if origin is collections.abc.Generator:
        return returned_models(arguments[0], name)
    if origin in _SEVERAL:
        return _of_all([each for each in arguments if each is not Ellipsis], name)
    if isinstance(hint, TypeVar) or (isinstance(hint, Hashable) and hint in _SEVERAL | _NOTHING):
        return ()
    if inspect.isclass(hint) and issubclass(hint, HandlerVerdict):
        return ()
    if inspect.isclass(hint) and (event_type_of(hint) is not None or issubclass(hint, Event)):
        return (hint,)
    shown = getattr(hint, "__name__", None) or str(hint)
    raise ConfigurationError(
        f"{name}: the return annotation names {shown}, which cannot be emitted; a handler returns None, an event, "
        "or a list of events."
    )


def returned_by(function: Callable[..., Any]) -> tuple[type[Any], ...]:
    """Return the events that a function returns, as far as its annotation names them. Raises: as `returned_models`."""
    name = getattr(function, "__name__", repr(function))
    try:
        hints = inspect.get_annotations(function, eval_str=True)
    except NameError:
        return ()  # a class of the function that holds this one: `emit` asks whether it is known
    return returned_models(hints.get("return", inspect.Parameter.empty), name)


def _of_all(hints: Any, name: str) -> tuple[type[Any], ...]:
    return tuple(model for each in hints for model in returned_models(each, name))
