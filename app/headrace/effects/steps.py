"""The steps of effects: calls whose answers are remembered."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple, Protocol, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from headrace.backoff import Backoff
from headrace.database.pool import ConnectionFactory
from headrace.effects.rows import read_answers, remember
from headrace.errors import ConfigurationError, DataRefusedError, StateError
from headrace.log.stored import check_name
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.effects")


class Memory(Protocol):
    """Where answers are kept."""

    async def keep(self, identity: bytes, name: str, answer: str) -> None:
        """Return when the answer is kept."""

    async def settle(self, identity: bytes, name: str) -> None:
        """Return when an answer that an earlier run handed to `keep` is kept."""


class Steps:
    """The `Step` of one run of a call; `answers` are those of earlier runs, and get those of this one."""

    def __init__(self, group: str, identity: bytes, answers: dict[str, str], memory: Memory) -> None:
        self._group = group
        self._identity = identity
        self._answers = answers
        self._memory = memory
        self._names: set[str] = set()

    @property
    def key(self) -> str:
        """A key of the event for this subscription."""
        return _key(self._group, self._identity)

    def key_of(self, name: str) -> str:
        """A key of one of the event's steps."""
        return _key(self._group, self._identity, name)

    async def __call__(
        self, name: str, call: Callable[..., Awaitable[Any]], *args: Any, returns: Any = None, **options: Any
    ) -> Any:
        """Return the remembered answer, or call, and remember what that answers."""
        self._take(name)
        adapter = _adapter(name, call, returns)
        known = self._answers.get(name)
        if known is not None:
            await self._memory.settle(self._identity, name)  # the run that got it may have ended before it was kept
            try:
                return adapter.validate_json(known)
            except ValidationError as error:
                raise ConfigurationError(
                    f"step {name!r}: the answer of an earlier run does not fit {adapter._type!r}: {error}; let it take "
                    "the old form as well, or give the step another name, and it is called again."
                ) from error
        called = call(*args, **options)
        if not inspect.isawaitable(called):
            raise ConfigurationError(
                f"step {name!r}: it calls an async function; wrap a blocking one: asyncio.to_thread."
            )
        answer = self._answers[name] = _json(name, adapter, await called)
        await self._memory.keep(self._identity, name, answer)
        return adapter.validate_json(answer)

    def _take(self, name: str) -> None:
        check_name(name, "step")
        if name in self._names:
            raise ConfigurationError(f"step {name!r} is there twice in one run; give each call a name of its own.")
        self._names.add(name)


class _Answer(NamedTuple):
    identity: bytes
    name: str
    answer: str


class StepMemory:
    """Keeps the answers of one partition's steps in Postgres: those that come at one time in one statement."""

    def __init__(self, lend: ConnectionFactory, group: str) -> None:
        self._lend = lend
        self._group = group
        self.is_away = False
        """True while Postgres takes no answers."""
        self._waiting: list[_Answer] = []
        self._unkept: dict[tuple[bytes, str], asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def keep(self, identity: bytes, name: str, answer: str) -> None:
        """Return when Postgres has the answer; an outage is waited for. Raises: DataRefusedError."""
        if (identity, name) not in self._unkept:
            self._unkept[identity, name] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Answer(identity, name, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write(), name="steps")
        await self.settle(identity, name)

    async def settle(self, identity: bytes, name: str) -> None:
        """Return when the answer is no longer on its way to Postgres. Raises: DataRefusedError, if that is its end."""
        kept = self._unkept.get((identity, name))
        if kept is not None:
            await asyncio.shield(kept)

    async def recall(self, identity: bytes) -> dict[str, str]:
        """Return the answers that are kept, by the steps' names; an outage is waited for."""
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                async with self._lend() as connection:
                    return (await read_answers(connection, self._group, [identity])).get(identity, {})
            except StateError as error:
                logger.warning("an effect waits for the answers of its steps", error=str(error))
                await asyncio.sleep(backoff.next_seconds())

    def stop(self) -> None:
        """Stop writing; what is not kept yet is called again."""
        if self._task is not None:
            self._task.cancel()

    async def _write(self) -> None:
        backoff = Backoff(0.1, 5.0)
        while self._waiting:
            answers, self._waiting = self._waiting, []
            try:
                await self._remember(answers)
            except StateError as error:
                answers = [each for each in answers if each[:2] in self._unkept]
                self._waiting, self.is_away = answers + self._waiting, True
                logger.warning("answers of steps wait", answers=len(answers), error=str(error))
                await asyncio.sleep(backoff.next_seconds())
                continue
            except Exception as error:
                self._give_up(answers, error)
            backoff.reset()
            self.is_away = False

    async def _remember(self, answers: Sequence[_Answer]) -> None:
        """Write answers, and tell those who wait; one that Postgres refuses fails alone. Raises: StateError."""
        try:
            async with self._lend() as connection:
                await remember(connection, self._group, answers)
        except DataRefusedError as error:
            if len(answers) == 1:
                self._give_up(answers, error)
                return
            for each in answers:
                await self._remember([each])
            return
        for each in answers:
            self._unkept.pop(each[:2]).set_result(None)

    def _give_up(self, answers: Sequence[_Answer], error: Exception) -> None:
        """Let the calls fail that wait for these; when they are tried again, they go on with what is in memory."""
        for each in answers:
            kept = self._unkept.pop(each[:2], None)
            if kept is not None:
                logger.warning("an answer of a step cannot be kept", step=each.name, error=str(error))
                kept.set_exception(error)
                kept.exception()  # perhaps nobody waits for it any more


def _key(group: str, identity: bytes, name: str = "") -> str:
    text = hashlib.blake2b(group.encode(), digest_size=16).digest() + identity + name.encode("utf-8", "replace")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _adapter(name: str, call: Callable[..., Any], returns: Any) -> TypeAdapter[Any]:
    """Return what writes and reads an answer. Raises: ConfigurationError, before anything was called."""
    try:
        return _adapter_of(_annotated(call) if returns is None else returns)
    except PydanticSchemaGenerationError as error:
        shown = getattr(returns or _annotated(call), "__name__", "its annotation")
        raise ConfigurationError(
            f"step {name!r}: an answer is kept as JSON, and {shown} is not; call a function that returns what you need "
            "of it, such as a dict or a Pydantic model."
        ) from error


@lru_cache(maxsize=1_000)
def _adapter_of(returns: Any) -> TypeAdapter[Any]:
    return TypeAdapter(returns)


_known: dict[CodeType, Any] = {}
"""What functions are annotated to return, by their code: reading it takes longer than all else of a step."""


def _annotated(call: Callable[..., Any]) -> Any:
    """Return what a function is annotated to return; an annotation that cannot be read says nothing."""
    function = inspect.unwrap(call)
    code = getattr(function, "__code__", None)
    if code in _known:
        return _known[code]
    returns: Any = Any
    with suppress(Exception):
        returns = get_type_hints(function).get("return", Any)
    if code is not None:
        _known[code] = returns
    return returns


def _json(name: str, adapter: TypeAdapter[Any], answer: Any) -> str:
    try:
        return adapter.dump_json(answer).decode()
    except PydanticSerializationError as error:
        raise ConfigurationError(
            f"step {name!r}: it was answered, but the answer cannot be kept as JSON ({error}); return a dict, or a "
            "Pydantic model."
        ) from error
