"""Hooks around the handling of each event: `@events.middleware`, in the shape of FastAPI's.

```
@events.middleware
async def timed(handling: Handling, call_next: CallNext) -> Any:
    began = time.perf_counter()
    try:
        return await call_next(handling)
    finally:
        logger.info("handled", handler=handling.handler, seconds=time.perf_counter() - began)
```
It is called around the dependencies and the handler, within its time limit, also for lanes, effects, batch handlers and
the rebuild of a projection. What it raises, the handler has raised; what it returns, the handler has returned. The one
that is declared last is the outermost.

A middleware is a coroutine function for every kind of handler. Around a plain function, which runs in a thread, its
coroutine is driven without an event loop: it may await `call_next`, and nothing that has to be waited for. The chain is
made once, when the service starts, and a handler without middlewares does not know of them.

Rejected: a second form for plain functions (each hook written twice); a hop to the event loop around each call of a
thread (it costs more than most handlers).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Literal

from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.handlers.inject import Emit

Kind = Literal["handler", "batch handler", "effect"]


class Handling:
    """One call of a handler, as a middleware sees it."""

    __slots__ = (
        "_call",
        "attempt",
        "emit",
        "envelopes",
        "events",
        "handler",
        "is_async",
        "key",
        "kind",
        "subscription",
    )

    def __init__(
        self,
        name: HandlerName,
        events: Sequence[Any],
        envelopes: Sequence[Envelope],
        key: str | None,
        attempt: int,
        emit: Emit,
        call: Callable[[Handling], Any],
    ) -> None:
        self.subscription, self.handler, self.kind, self.is_async = (
            name.subscription,
            name.handler,
            name.kind,
            name.is_async,
        )
        self.events: tuple[Any, ...] = tuple(events)
        """One event, or those of a batch handler's list."""
        self.envelopes: tuple[Envelope, ...] = tuple(envelopes)
        self.key = key
        """What order is kept by; None for a list."""
        self.attempt = attempt
        """The number of this run of the event, from 1."""
        self.emit = emit
        """Emits together with the handler; see `Emit`."""
        self._call: Callable[[Handling], Any] | None = call

    @property
    def event(self) -> Any:
        """The event; the handler gets what is assigned to it. Raises: ConfigurationError for a batch handler."""
        self._refuse_lists()
        return self.events[0]

    @event.setter
    def event(self, event: Any) -> None:
        self._refuse_lists()
        self.events = (event,)

    @property
    def envelope(self) -> Envelope:
        """The event's envelope. Raises: ConfigurationError for a batch handler."""
        self._refuse_lists()
        return self.envelopes[0]

    def take_call(self) -> Any:
        """Call the handler. Raises: what it raises; RuntimeError if it was called already."""
        call, self._call = self._call, None
        if call is None:
            raise RuntimeError(f"call_next was called twice around {self.handler}; a handler runs once for an event.")
        return call(self)

    def _refuse_lists(self) -> None:
        if self.kind == "batch handler":
            raise ConfigurationError(f"{self.handler} takes a list; a middleware finds it in .events and .envelopes.")


class HandlerName:
    """Which handler it is."""

    __slots__ = ("handler", "is_async", "kind", "subscription")

    def __init__(self, subscription: str, handler: str, kind: Kind, *, is_async: bool) -> None:
        self.subscription, self.handler, self.kind, self.is_async = subscription, handler, kind, is_async


CallNext = Callable[[Handling], Awaitable[Any]]
"""Calls what comes next, at last the handler, and returns what that returns: None, an event, or a list of events."""

Middleware = Callable[[Handling, CallNext], Coroutine[Any, Any, Any]]


class Around:
    """The middlewares of one handler, as one function. `name` says which handler it is."""

    def __init__(self, name: HandlerName, middlewares: Sequence[Middleware]) -> None:
        self.name = name
        self._chain: Callable[[Handling], Coroutine[Any, Any, Any]] = _innermost_async if name.is_async else _innermost
        for middleware in middlewares:
            self._chain = _around(middleware, self._chain)

    async def run(self, handling: Handling) -> Any:
        """Call an async handler within the middlewares, and return what is to be emitted."""
        return await self._chain(handling)

    def run_plainly(self, handling: Handling) -> Any:
        """Call a plain handler within the middlewares, in this thread. Raises: ConfigurationError if one waits."""
        coroutine = self._chain(handling)
        try:
            coroutine.send(None)
        except StopIteration as returned:
            return returned.value
        coroutine.close()
        raise ConfigurationError(
            f"a middleware waits for something around {self.name.handler}, which is a plain function in a thread; let "
            "it look at `handling.is_async` first, or make the handler async."
        )


def checked_middleware(function: Any) -> Middleware:
    """Return the function if it can be a middleware. Raises: ConfigurationError that says what to write."""
    name = getattr(function, "__qualname__", repr(function))
    shape = f"write async def {getattr(function, '__name__', 'middleware')}(handling, call_next)"
    if not inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"the middleware {name} is no coroutine function; {shape}.")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise ConfigurationError(f"the middleware {name} does not take two arguments; {shape}.") from error
    middleware: Middleware = function
    return middleware


def _around(middleware: Middleware, call_next: CallNext) -> Callable[[Handling], Coroutine[Any, Any, Any]]:
    return lambda handling: middleware(handling, call_next)


async def _innermost(handling: Handling) -> Any:
    return handling.take_call()


async def _innermost_async(handling: Handling) -> Any:
    return await handling.take_call()
