"""One call of a handler: with its middlewares and dependencies, its time limit, and what it returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Protocol

from headrace.database.pool import Connection
from headrace.emits.emitter import Emitter
from headrace.errors import ConfigurationError
from headrace.handlers.inject import Transaction
from headrace.handlers.middleware import Handling
from headrace.handlers.signature import Dependency
from headrace.handlers.subscription import Handler
from headrace.handlers.verdicts import HandlerVerdict
from headrace.item import Item

CUT_OFF = "the handler was cancelled at its time limit and swallowed that; let CancelledError through."


class Called(Protocol):
    """What a handler is called for: an item, or what a batch handler is given of several."""

    @property
    def event(self) -> Any: ...
    @property
    def envelope(self) -> Any: ...


SWALLOWED = "a dependency swallowed the handler's error; let it through, or do not catch around its yield."


def call_handler(item: Called, handler: Handler, states: Sequence[Any], emitter: Emitter) -> None:
    """Call a synchronous handler with its middlewares and dependencies, and emit what it returns.

    Raises: whatever it raises.
    """
    if handler.around is None:
        _call(item, handler, item.event, states, emitter, partial(emit_returned, emitter))
        return

    def call(handling: Handling) -> Any:
        event = item.event if handler.is_batch else handling.event
        return _call(item, handler, event, states, emitter, _done)

    emit_returned(emitter, handler.around.run_plainly(_handling(item, handler, emitter, call)))


def _call(
    item: Called,
    handler: Handler,
    event: Any,
    states: Sequence[Any],
    emitter: Emitter,
    then: Callable[[Any], Any],
) -> Any:
    """Call a handler with its dependencies, which end behind what is done `then` with what it returns."""
    is_done, result = False, None
    with ExitStack() as stack:
        values: list[Any] = []
        for each in handler.dependencies:
            values.append(enter(stack, each, item, emitter, states, values))
        result = then(handler.call(event, item, states, emitter, None, values))
        is_done = True
    if not is_done:
        raise RuntimeError(SWALLOWED)
    return result


def _done(returned: Any) -> Any:
    """Return what a handler returned, with everything done that it does: a generator works when it is read."""
    return list(returned) if _is_iterator(returned) else returned


def enter(
    stack: ExitStack,
    dependency: Dependency,
    item: Called,
    emitter: Emitter,
    states: Sequence[Any],
    before: Sequence[Any],
) -> Any:
    """Return the dependency's value; `before` are those of the ones that were called before it."""
    value = dependency.signature.call(item.event, item, states, emitter, None, before)
    return stack.enter_context(contextmanager(lambda: value)()) if dependency.is_generator else value


async def enter_async(
    stack: AsyncExitStack,
    dependency: Dependency,
    item: Called,
    emitter: Emitter,
    states: Sequence[Any],
    transaction: Transaction | None,
    before: Sequence[Any],
) -> Any:
    """Return the dependency's value, as `enter` does."""
    value = dependency.signature.call(item.event, item, states, emitter, transaction, before)
    if dependency.is_generator:
        if hasattr(value, "__anext__"):
            return await stack.enter_async_context(asynccontextmanager(lambda: value)())
        return stack.enter_context(contextmanager(lambda: value)())
    return await value if dependency.signature.is_async else value


@asynccontextmanager
async def savepoint(connection: Connection | None) -> AsyncIterator[None]:
    """Take back what is done inside if it raises; without a connection there is nothing to take back."""
    if connection is None:
        yield
        return
    async with connection.transaction():
        yield


async def await_handler(
    item: Called,
    handler: Handler,
    states: Sequence[Any],
    transaction: Transaction | None,
    emitter: Emitter,
    limit: asyncio.Timeout,
) -> None:
    """Call an async handler with its middlewares and dependencies, and emit what it returns.

    `limit` is not entered yet. Raises: whatever it raises; TimeoutError.
    """
    is_done = False
    async with limit, AsyncExitStack() as stack:
        if handler.around is not None:
            await _await_wrapped(item, handler, states, transaction, emitter)
        else:
            values = await _values(stack, item, handler, states, transaction, emitter)
            emit_returned(emitter, await handler.call(item.event, item, states, emitter, transaction, values))
        if transaction is not None:
            await transaction.check()
        is_done = True
    if limit.expired():
        raise TimeoutError(CUT_OFF)  # the handler swallowed it
    if not is_done:
        raise RuntimeError(SWALLOWED)


async def _await_wrapped(
    item: Called, handler: Handler, states: Sequence[Any], transaction: Transaction | None, emitter: Emitter
) -> None:
    assert handler.around is not None

    async def call(handling: Handling) -> Any:
        is_done, returned = False, None
        event = item.event if handler.is_batch else handling.event
        async with AsyncExitStack() as stack:
            values = await _values(stack, item, handler, states, transaction, emitter)
            returned = await handler.call(event, item, states, emitter, transaction, values)
            is_done = True
        if not is_done:
            raise RuntimeError(SWALLOWED)
        return returned

    emit_returned(emitter, await handler.around.run(_handling(item, handler, emitter, call)))


async def _values(
    stack: AsyncExitStack,
    item: Called,
    handler: Handler,
    states: Sequence[Any],
    transaction: Transaction | None,
    emitter: Emitter,
) -> list[Any]:
    values: list[Any] = []
    for each in handler.dependencies:
        values.append(await enter_async(stack, each, item, emitter, states, transaction, values))
    return values


def _handling(item: Called, handler: Handler, emitter: Emitter, call: Callable[[Handling], Any]) -> Handling:
    assert handler.around is not None
    if isinstance(item, Item):
        return Handling(handler.around.name, [item.event], [item.envelope], item.key, item.attempt, emitter, call)
    return Handling(handler.around.name, item.event, item.envelope, None, 1, emitter, call)


def emit_returned(emitter: Emitter, returned: Any) -> None:
    """Emit the events that a handler returned. Raises: what the emitter raises, and a returned verdict."""
    if returned is None:
        return
    try:
        for event in returned if isinstance(returned, (list, tuple)) or _is_iterator(returned) else (returned,):
            emitter(event)
    except ConfigurationError:
        if isinstance(returned, HandlerVerdict):  # asked only if it is no event, so that events cost nothing more
            raise returned from None
        raise


def _is_iterator(value: object) -> bool:
    return isinstance(value, Iterator)
