"""What `events.task()` makes of a function: an event type of its parameters, and the effect that calls it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, get_args, get_origin

from fastapi.params import Depends
from pydantic import create_model

from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.event import Event
from headrace.handlers.inject import Emit, StateMarker, States, Step, Table, Transaction
from headrace.handlers.signature import hints_of
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.tasks")

P = ParamSpec("P")
R = TypeVar("R")

SUBSCRIPTION = "tasks"
_INJECTED = (Envelope, Emit, Step, Transaction)


class Task(Generic[P, R]):
    """A function whose calls may be left to the service. Called itself, it is the function."""

    def __init__(
        self,
        function: Callable[P, R],
        local_names: Mapping[str, Any],
        *,
        service: str,
        name: str | None,
        key: str | None,
    ) -> None:
        """Read the function. Raises: ConfigurationError (a parameter that cannot be written as JSON, no such key)."""
        self.name: str = name or str(getattr(function, "__name__", ""))
        self.__name__ = self.name
        self.__doc__ = function.__doc__
        self._function = function
        where = f"task {self.name or function!r}"
        if not inspect.isroutine(function) or self.name == "<lambda>":
            raise ConfigurationError(f"{where}: write a function, def or async def, below @events.task().")
        data, self._injected = _divided(function, local_names, where)
        if key is not None and key not in data:
            raise ConfigurationError(f"{where}: key={key!r} is none of its parameters: {', '.join(data) or 'none'}.")
        self._key = key
        self._threads: dict[str, asyncio.Task[Any]] = {}
        """The calls of a synchronous function that have not ended, by key."""
        self._data = inspect.Signature([parameter for parameter, _ in data.values()])
        self.model: type[Event] = create_model(  # type: ignore[call-overload]
            f"Task_{self.name}",
            __base__=Event,
            __module__=function.__module__,
            __doc__=f"A call of {self.name} that is to be made.",
            __cls_kwargs__={
                "type": f"task.{self.name}",
                "topic": f"{service}-tasks",
                "key": key,
                "internal": True,
            },
            **{each: (hint, _default(parameter)) for each, (parameter, hint) in data.items()},
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now."""
        return self._function(*args, **kwargs)

    def event(self, *args: Any, **kwargs: Any) -> Event:
        """Return the event that asks for a call with these arguments: for `emit` and an outbox.

        Raises: TypeError (other parameters than the function's), ValidationError (wrong values).
        """
        return self.model(**self._data.bind(*args, **kwargs).arguments)

    def effect(self) -> Callable[..., Any]:
        """Return the function of the effect: it takes the event, and what the platform gives to the task."""
        function: Callable[..., Any] = self._function
        names = [parameter.name for parameter in self._injected]
        fields, is_async = list(self.model.model_fields), inspect.iscoroutinefunction(function)

        async def call(event: Any, *values: Any) -> None:
            arguments = {name: getattr(event, name) for name in fields} | dict(zip(names, values, strict=True))
            if is_async:
                await function(**arguments)
            else:
                await self._in_thread(arguments)

        event = inspect.Parameter("event", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=self.model)
        parameters = [event, *self._injected]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
        call.__name__ = call.__qualname__ = self.name
        call.__module__, call.__doc__ = function.__module__, function.__doc__
        return call

    async def _in_thread(self, arguments: dict[str, Any]) -> None:
        """Call the function in a thread, but never while one for the same key runs: nothing ends one whose time is up.

        To wait for it counts as a part of the attempt's own time.
        """
        function: Callable[..., Any] = self._function
        key = None if self._key is None else str(arguments[self._key])
        while key is not None and (earlier := self._threads.get(key)) is not None:
            logger.warning("a task waits, since an earlier call for its key still runs", task=self.name)
            await asyncio.wait({earlier})
        call = asyncio.get_running_loop().create_task(asyncio.to_thread(function, **arguments))

        def ended(call: asyncio.Task[Any]) -> None:
            if key is not None:
                del self._threads[key]
            if not call.cancelled():
                call.exception()  # nobody may be there to take it

        if key is not None:
            self._threads[key] = call
        call.add_done_callback(ended)
        await asyncio.shield(call)


def _divided(
    function: Callable[..., Any], local_names: Mapping[str, Any], where: str
) -> tuple[dict[str, tuple[inspect.Parameter, Any]], list[inspect.Parameter]]:
    """Return the parameters that come from the caller, with their types, and those that the platform gives."""
    hints = hints_of(function, where, local_names)
    data: dict[str, tuple[inspect.Parameter, Any]] = {}
    injected = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigurationError(
                f"{where}: parameter {name!r} has no name in an event; write parameters without *, ** and /."
            )
        if name not in hints:
            raise ConfigurationError(f"{where}: parameter {name!r} has no annotation; its type is that of a field.")
        if _is_injected(parameter, hints[name]):
            injected.append(parameter.replace(annotation=hints[name], kind=parameter.POSITIONAL_OR_KEYWORD))
        else:
            data[name] = parameter, hints[name]
    given = [each.replace(default=_depends(each)) for each in injected]
    return data, sorted(given, key=lambda each: each.default is not each.empty)  # as a signature has to be


def _is_injected(parameter: inspect.Parameter, hint: Any) -> bool:
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    is_marked = any(isinstance(mark, (Depends, StateMarker)) for mark in marks)
    return (
        is_marked or isinstance(parameter.default, Depends) or hint in _INJECTED or get_origin(hint) in (States, Table)
    )


def _depends(parameter: inspect.Parameter) -> Any:
    return parameter.default if isinstance(parameter.default, Depends) else parameter.empty


def _default(parameter: inspect.Parameter) -> Any:
    return ... if parameter.default is parameter.empty else parameter.default
