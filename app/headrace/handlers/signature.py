"""Reads a handler's signature once, at import, and makes one closure of it, so that an event costs no look-ups."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from types import FrameType, MappingProxyType
from typing import Annotated, Any, get_args, get_origin

import msgspec
from fastapi.params import Depends
from pydantic import BaseModel

from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.event import event_type_of
from headrace.fields import classes_in
from headrace.handlers.inject import Emit, StateMarker, States, Step, Table, Transaction
from headrace.handlers.returns import returned_models
from headrace.handlers.sessions import warn_of_session
from headrace.state.codec import StateType

Call = Callable[[Any, Any, Any, Emit, "Transaction | None", Any], Any]
"""(event, item, states, emit, transaction, dependencies) -> what the function returns (a coroutine if async).

The item has the `envelope`, which is read if the function wants it.
"""

MENU = (
    "the event (annotated with its class), Envelope, State[T], Emit, Transaction, Table[T], or "
    "Annotated[T, Depends(function)]"
)
BATCH_MENU = "list[Envelope], States[T], Emit, Transaction, or Annotated[T, Depends(function)] of a function like it"


Overrides = Mapping[Any, Callable[..., Any]]
"""FastAPI's `app.dependency_overrides`: a dependency, and what is called in its place."""


class Signature:
    """What a function asks for, and `call`, which passes it by position.

    The signatures of its dependencies share `states` and `dependencies` with it: a dependency of two functions is
    called once per event, before both.
    """

    __slots__ = (
        "_function",
        "_is_dependency",
        "_overrides",
        "_own_states",
        "call",
        "dependencies",
        "emits",
        "events",
        "has_async_dependency",
        "is_async",
        "is_batch",
        "name",
        "of_list",
        "of_one",
        "returns",
        "states",
        "tables",
        "wants_emit",
        "wants_envelope",
        "wants_step",
        "wants_transaction",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        local_names: Mapping[str, Any] | None = None,
        *,
        overrides: Overrides = MappingProxyType({}),
        caller: Signature | None = None,
    ) -> None:
        self.name: str = getattr(function, "__qualname__", repr(function)).rpartition("<locals>.")[2]
        body = _body(function)
        self.is_async: bool = inspect.iscoroutinefunction(body)
        is_dependency = caller is not None
        self._is_dependency = is_dependency
        self._function = body
        self._overrides = overrides
        self._own_states: set[type[Any]] = set()
        self.has_async_dependency = False
        if inspect.isasyncgenfunction(body) and not is_dependency:
            raise ConfigurationError(
                f"{self.name}: an async handler cannot yield; return a list of events, or call emit."
            )
        self.events: tuple[type[Any], ...] = ()
        self.states: list[StateType] = [] if caller is None else caller.states
        self.dependencies: list[Dependency] = [] if caller is None else caller.dependencies
        """In the order in which they are called."""
        self.wants_envelope = self.wants_transaction = self.wants_emit = self.wants_step = False
        self.of_one: str | None = None
        """The first parameter that is about one event; None if there is none."""
        self.of_list: str | None = None
        """The first parameter that is about a list of events."""
        self.is_batch = False
        """True for a handler that takes a list of events."""
        self.tables: list[type[Any]] = []
        """The classes of the rows that it writes."""
        hints = hints_of(body, self.name, local_names)
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
        if not is_dependency:
            self._check_one_or_list()
        takes_transaction = any(argument.endswith("transaction") for argument in arguments)
        if takes_transaction and not (self.is_async or inspect.isasyncgenfunction(body)):
            raise ConfigurationError(
                f"{self.name}: a Transaction is awaited, so the handler must be `async def {self.name}(...)`."
            )
        code = f"lambda event, item, states, emit, transaction, dependencies: function({', '.join(arguments)})"
        self.call: Call = eval(code, {"function": function})  # noqa: S307 - built from the parameters' own names

    def _source(self, parameter: inspect.Parameter, hint: Any, local_names: Mapping[str, Any] | None) -> str:
        where = f"{self.name}: parameter {parameter.name!r}"
        depends = parameter.default if isinstance(parameter.default, Depends) else None
        if get_origin(hint) is Annotated:
            inner, *marks = get_args(hint)
            for mark in marks:
                if isinstance(mark, StateMarker):
                    self.of_one = self.of_one or parameter.name
                    return self._state(inner, where)
                if isinstance(mark, Depends):
                    depends = mark
            hint = inner
        if depends is not None:
            return self._dependency(depends, hint, where, local_names)
        if hint is inspect.Parameter.empty:
            raise ConfigurationError(f"{where} has no annotation; annotate it with {MENU}.")
        if get_origin(hint) is States:
            self.of_list = self.of_list or parameter.name
            return self._state(get_args(hint)[0], where)
        if hint is Envelope or hint == list[Envelope]:
            self._note(parameter, is_list=hint is not Envelope)
            self.wants_envelope = True
            return "item.envelope"
        if hint is Emit:
            self.wants_emit = True
            return "emit"
        if hint is Step:
            self.wants_step = True
            return "emit.step"
        if get_origin(hint) is Table:
            self.of_one = self.of_one or parameter.name
            self.tables.append(get_args(hint)[0])
            return "emit.table"
        if hint is Transaction:
            self.wants_transaction = True
            return "transaction"
        is_list = get_origin(hint) is list
        if models := _event_models(get_args(hint)[0] if is_list else hint):
            self._note(parameter, is_list=is_list)
            self.is_batch = self.is_batch or is_list
            if self.events:
                raise ConfigurationError(f"{where}: a handler takes one event; {self.name} has two event parameters.")
            self.events = models
            return "event"
        shown = getattr(hint, "__name__", None) or str(hint)
        advice = f" For a value kept per key write State[{shown}]." if _is_state(hint) else ""
        raise ConfigurationError(f"{where}: {shown} cannot be injected; a handler takes {MENU}.{advice}")

    def _note(self, parameter: inspect.Parameter, *, is_list: bool) -> None:
        if is_list:
            self.of_list = self.of_list or parameter.name
        else:
            self.of_one = self.of_one or parameter.name

    def _check_one_or_list(self) -> None:
        """Refuse a parameter about one event in a batch handler, and one about a list in any other."""
        functions = (self, *(dependency.signature for dependency in self.dependencies))
        for each in functions:
            wrong = each.of_one if self.is_batch else each.of_list
            if wrong is not None:
                where = f"{each.name}: parameter {wrong!r}"
                if self.is_batch:
                    raise ConfigurationError(
                        f"{where} is about one event, and {self.name} takes a list of them; it takes {BATCH_MENU}."
                    )
                raise ConfigurationError(
                    f"{where} is about a list of events; write the handler with the list: events: list[WalletCredited]."
                )

    def _state(self, model: Any, where: str) -> str:
        if not inspect.isclass(model):
            raise ConfigurationError(f"{where}: State[...] takes a class, not {model!r}.")
        if model in self._own_states:
            raise ConfigurationError(f"{where}: State[{model.__name__}] is asked for twice; one parameter is enough.")
        self._own_states.add(model)
        for index, state in enumerate(self.states):
            if state.model is model:
                return f"states[{index}]"
        self.states.append(StateType(model))
        return f"states[{len(self.states) - 1}]"

    def _dependency(self, depends: Depends, hint: Any, where: str, local_names: Mapping[str, Any] | None) -> str:
        if depends.dependency is None:
            raise ConfigurationError(f"{where}: Depends() needs the function to call: Depends(get_rates).")
        function = self._overrides.get(depends.dependency, depends.dependency)
        dependency = self._known(function) if depends.use_cache else None
        if dependency is None:
            dependency = Dependency(function, local_names, self, self._overrides, is_shared=depends.use_cache)
            self.dependencies.append(dependency)
        self.has_async_dependency = self.has_async_dependency or dependency.is_async
        if dependency.is_async and not self.is_async and not self._is_dependency:
            raise ConfigurationError(
                f"{where}: {dependency.signature.name} is async, so the handler must be `async def {self.name}(...)`."
            )
        if not dependency.signature.wants_transaction:  # else its session is the batch's
            warn_of_session(self._function, where, hint, dependency.signature.returns)
        self.wants_envelope = self.wants_envelope or dependency.signature.wants_envelope
        self.wants_transaction = self.wants_transaction or dependency.signature.wants_transaction
        self.wants_step = self.wants_step or dependency.signature.wants_step
        return f"dependencies[{self.dependencies.index(dependency)}]"

    def _known(self, function: Callable[..., Any]) -> Dependency | None:
        return next((each for each in self.dependencies if each.function is function and each.is_shared), None)


class Dependency:
    """A function named in `Depends(...)`: called per event; what follows its `yield` runs when the handler is done."""

    __slots__ = ("function", "is_async", "is_generator", "is_shared", "signature")

    def __init__(
        self,
        function: Callable[..., Any],
        local_names: Mapping[str, Any] | None,
        caller: Signature,
        overrides: Overrides,
        *,
        is_shared: bool,
    ) -> None:
        self.function = function
        self.is_shared = is_shared
        """False for `Depends(..., use_cache=False)`: the next parameter that asks for it gets another value."""
        self.signature = Signature(function, local_names, caller=caller, overrides=overrides)
        body = _body(function)
        self.is_generator = inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)
        self.is_async: bool = (
            self.signature.is_async or inspect.isasyncgenfunction(body) or self.signature.has_async_dependency
        )


def _body(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the plain function behind a partial, a class or a callable object."""
    if isinstance(function, functools.partial):
        return _body(function.func)
    if inspect.isclass(function):
        return function.__init__
    return function if inspect.isroutine(function) else type(function).__call__


def names_in(frame: FrameType) -> Mapping[str, Any]:
    """Return the local names of a function that declares another, which its annotations may use; none of a module."""
    return frame.f_locals if frame.f_locals is not frame.f_globals else {}


def hints_of(function: Callable[..., Any], name: str, local_names: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the annotations as types. Raises: ConfigurationError (one that is not known, or cannot be read)."""
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
