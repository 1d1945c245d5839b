"""Reads a handler's signature once, at import, and makes one closure of it, so that an event costs no look-ups."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin

import msgspec
from fastapi.params import Depends
from pydantic import BaseModel

from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.event import event_type_of
from headrace.fields import classes_in
from headrace.handlers.inject import Emit, StateMarker, Transaction
from headrace.handlers.returns import returned_models
from headrace.handlers.sessions import warn_of_session
from headrace.state.codec import StateType

Call = Callable[[Any, Envelope, Any, Emit, "Transaction | None", Any], Any]
"""(event, envelope, states, emit, transaction, dependencies) -> what the function returns (a coroutine if async)."""

MENU = "the event (annotated with its class), Envelope, State[T], Emit, Transaction, or Annotated[T, Depends(function)]"


class Signature:
    """What a function asks for, and `call`, which passes it by position."""

    __slots__ = (
        "_function",
        "_is_dependency",
        "call",
        "dependencies",
        "emits",
        "events",
        "is_async",
        "name",
        "returns",
        "states",
        "wants_envelope",
        "wants_transaction",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        local_names: Mapping[str, Any] | None = None,
        *,
        is_dependency: bool = False,
    ) -> None:
        self.name: str = getattr(function, "__qualname__", repr(function)).rpartition("<locals>.")[2]
        body = _body(function)
        self.is_async: bool = inspect.iscoroutinefunction(body)
        self._is_dependency = is_dependency
        self._function = body
        if inspect.isasyncgenfunction(body) and not is_dependency:
            raise ConfigurationError(
                f"{self.name}: an async handler cannot yield; return a list of events, or call emit."
            )
        self.events: tuple[type[Any], ...] = ()
        self.states: list[StateType] = []
        self.dependencies: list[Dependency] = []
        self.wants_envelope = self.wants_transaction = False
        hints = _hints(body, self.name, local_names)
        self.returns: Any = hints.get("return", inspect.Parameter.empty)
        """The return annotation."""
        self.emits: tuple[type[Any], ...] = () if is_dependency else returned_models(self.returns, self.name)
        """The classes of the events that a handler returns, as far as its annotation names them."""
        arguments = []
        by_name = False  # from the first parameter that keeps its default
        for parameter in _parameters(function, self.name):
            hint = hints.get(parameter.name, inspect.Parameter.empty)
            if _keeps_default(parameter, hint):
                by_name = True
                continue
            source = self._source(parameter, hint, local_names)
            by_name = by_name or parameter.kind is inspect.Parameter.KEYWORD_ONLY
            arguments.append(f"{parameter.name}={source}" if by_name else source)
        if self.wants_transaction and not self.is_async:
            raise ConfigurationError(
                f"{self.name}: a Transaction is awaited, so the handler must be `async def {self.name}(...)`."
            )
        code = f"lambda event, envelope, states, emit, transaction, dependencies: function({', '.join(arguments)})"
        self.call: Call = eval(code, {"function": function})  # noqa: S307 - built from the parameters' own names

    def _source(self, parameter: inspect.Parameter, hint: Any, local_names: Mapping[str, Any] | None) -> str:
        where = f"{self.name}: parameter {parameter.name!r}"
        depends = parameter.default if isinstance(parameter.default, Depends) else None
        if get_origin(hint) is Annotated:
            inner, *marks = get_args(hint)
            for mark in marks:
                if isinstance(mark, StateMarker):
                    return self._state(inner, where)
                if isinstance(mark, Depends):
                    depends = mark
            hint = inner
        if depends is not None:
            return self._dependency(depends, hint, where, local_names)
        if hint is inspect.Parameter.empty:
            raise ConfigurationError(f"{where} has no annotation; annotate it with {MENU}.")
        if hint is Envelope:
            self.wants_envelope = True
            return "envelope"
        if hint is Emit:
            return "emit"
        if hint is Transaction:
            self.wants_transaction = True
            return "transaction"
        if models := _event_models(hint):
            if self.events:
                raise ConfigurationError(f"{where}: a handler takes one event; {self.name} has two event parameters.")
            self.events = models
            return "event"
        shown = getattr(hint, "__name__", None) or str(hint)
        advice = f" For a value kept per key write State[{shown}]." if _is_state(hint) else ""
        raise ConfigurationError(f"{where}: {shown} cannot be injected; a handler takes {MENU}.{advice}")

    def _state(self, model: Any, where: str) -> str:
        if not inspect.isclass(model):
            raise ConfigurationError(f"{where}: State[...] takes a class, not {model!r}.")
        if any(state.model is model for state in self.states):
            raise ConfigurationError(f"{where}: State[{model.__name__}] is asked for twice; one parameter is enough.")
        self.states.append(StateType(model))
        return f"states[{len(self.states) - 1}]"

    def _dependency(self, depends: Depends, hint: Any, where: str, local_names: Mapping[str, Any] | None) -> str:
        if depends.dependency is None:
            raise ConfigurationError(f"{where}: Depends() needs the function to call: Depends(get_rates).")
        dependency = Dependency(depends.dependency, local_names)
        if dependency.is_async and not self.is_async and not self._is_dependency:
            raise ConfigurationError(
                f"{where}: {dependency.signature.name} is async, so the handler must be `async def {self.name}(...)`."
            )
        warn_of_session(self._function, where, hint, dependency.signature.returns)
        self.dependencies.append(dependency)
        self.wants_envelope = self.wants_envelope or dependency.signature.wants_envelope
        return f"dependencies[{len(self.dependencies) - 1}]"


class Dependency:
    """A function named in `Depends(...)`: called per event; what follows its `yield` runs when the handler is done."""

    __slots__ = ("is_async", "is_generator", "signature")

    def __init__(self, function: Callable[..., Any], local_names: Mapping[str, Any] | None) -> None:
        self.signature = Signature(function, local_names, is_dependency=True)
        nested = self.signature
        if nested.states or nested.wants_transaction:
            raise ConfigurationError(
                f"Depends({nested.name}): a dependency takes the event, Envelope or other dependencies; "
                "ask for State and Transaction in the handler itself."
            )
        body = _body(function)
        self.is_generator = inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)
        self.is_async: bool = (
            nested.is_async or inspect.isasyncgenfunction(body) or any(d.is_async for d in nested.dependencies)
        )


def _body(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the plain function behind a partial, a class or a callable object."""
    if isinstance(function, functools.partial):
        return _body(function.func)
    if inspect.isclass(function):
        return function.__init__
    return function if inspect.isroutine(function) else type(function).__call__


def _hints(function: Callable[..., Any], name: str, local_names: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, localns=dict(local_names or {}), include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"{name}: the annotation {error.name!r} is not known where the handler is declared; "
            "import or define it there."
        ) from error
    except Exception as error:
        raise ConfigurationError(f"{name}: an annotation cannot be read: {error}") from error


def _parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise ConfigurationError(f"{name}: *args and **kwargs cannot be injected; name each parameter.")
    return parameters


def _keeps_default(parameter: inspect.Parameter, hint: Any) -> bool:
    """True for a plain parameter with a default (`limit: int = 3`): the function's own business."""
    if parameter.default is inspect.Parameter.empty or isinstance(parameter.default, Depends):
        return False
    is_plain = all(part in _PLAIN for part in classes_in(hint))
    return is_plain and hint is not inspect.Parameter.empty and parameter.kind is not parameter.POSITIONAL_ONLY


def _event_models(hint: Any) -> tuple[type[Any], ...]:
    members = get_args(hint) if get_origin(hint) in (typing.Union, _UNION) else (hint,)
    if members and all(inspect.isclass(member) and event_type_of(member) for member in members):
        return members
    return ()


def _is_state(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, (BaseModel, msgspec.Struct))


_UNION = type(int | str)
_PLAIN = frozenset({bool, int, float, str, bytes, type(None)})
