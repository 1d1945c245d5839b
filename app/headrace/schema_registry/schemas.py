"""The schemas that a process knows: each is fetched once, beside the events that wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from headrace.errors import DecodeError, SchemaNotFetchedError, SchemaRegistryError
from headrace.schema_registry.client import RegistryClient, open_client
from headrace.schema_registry.framing import LARGEST, SchemaId
from headrace.schema_registry.readers import Reader, json_reader, new_reader
from headrace.settings import SchemaRegistrySettings

AT_ONCE = 8
"""Questions that the registry is asked at the same time."""

REFUSED_SECONDS = 60.0
"""A schema that could not be had is asked for again after this long: longer than a batch of wrong records takes."""

IMPATIENT_PATIENCES = 10
"""How many times its patience a process goes on without, after it has waited in vain."""

MOST_REFUSED = 10_000
"""With more of them, those that are to be asked for again are forgotten."""


class _Refused(NamedTuple):
    reason: str
    until: float


class Schemas:
    """The schemas of one registry. `reader` is for any thread, `fetch` for the event loop."""

    def __init__(
        self, settings: Callable[[], SchemaRegistrySettings], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._readers: dict[SchemaId, Reader] = {}
        self._refused: dict[SchemaId, _Refused] = {}
        self._missed: dict[SchemaId, float] = {}
        """When the registry was first asked for schemas that it does not have yet."""
        self._learnt: dict[str, int] = {}
        self._impatient_until = 0.0
        self._round: asyncio.Task[None] | None = None
        """What asks the registry now; whoever needs one of its schemas waits for it."""

    def reader(self, schema: SchemaId) -> Reader:
        """Return what reads records of a schema.

        Raises: SchemaNotFetchedError (fetch it first), DecodeError (it cannot be had, and why).
        """
        known = self._readers.get(schema)
        if known is not None:
            return known
        refused = self._refused.get(schema)
        if refused is not None and self._clock() < refused.until:
            raise DecodeError(refused.reason)
        raise SchemaNotFetchedError({schema}, self.fetch)

    def learn(self, name: str) -> int:
        """Return the number of a schema of this name that no registry has, whose bytes are JSON; for tests."""
        if name not in self._learnt:
            self._learnt[name] = LARGEST - len(self._learnt)
            self._readers[self._learnt[name]] = json_reader(name)
        return self._learnt[name]

    async def fetch(self, schemas: Collection[SchemaId]) -> None:
        """Return when each of the schemas is known, or refused.

        Cancel: safe; others may wait for the same answers. Raises: SchemaRegistryError (the registry is away, or it
        does not have one of them yet).
        """
        loop, asked = asyncio.get_running_loop(), set[SchemaId]()
        while missing := set(self._unsettled(schemas)) - asked:
            running = self._round
            if running is None or running.done() or running.get_loop() is not loop:
                asked |= missing
                running = self._round = loop.create_task(self._ask(missing), name="fetch schemas")
                running.add_done_callback(_forget)
            await asyncio.shield(running)
        if late := sorted(map(str, self._unsettled(schemas))):
            seconds = self._settings().patience_seconds
            raise SchemaRegistryError(
                f"the schema registry does not have schema {', '.join(late[:3])} yet; records of it become dead "
                f"letters {seconds:g} s after it was first asked for."
            )

    def _unsettled(self, schemas: Collection[SchemaId]) -> Iterator[SchemaId]:
        now = self._clock()
        for schema in schemas:
            refused = self._refused.get(schema)
            if schema not in self._readers and (refused is None or now >= refused.until):
                yield schema

    async def _ask(self, schemas: Collection[SchemaId]) -> None:
        waiting = list(schemas)
        async with open_client(self._settings()) as client:
            while waiting:
                some, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
                answers = await asyncio.gather(*(self._ask_one(client, each) for each in some), return_exceptions=True)
                for failure in answers:
                    if failure is not None:
                        raise failure

    async def _ask_one(self, client: RegistryClient, schema: SchemaId) -> None:
        try:
            found = await client.schema(schema)
            reader = await new_reader(found) if found is not None else None
        except (SchemaRegistryError, OSError, MemoryError):
            raise
        except Exception as error:  # whatever a schema leads to is its own fault: others of the registry are read on
            reason = str(error) if isinstance(error, DecodeError) else f"{type(error).__name__}: {error}"
            self._refuse(schema, f"the schema {schema} of the registry cannot be used: {reason}")
            return
        if reader is not None:
            self._missed.pop(schema, None)
            self._readers[schema] = reader
        elif not self._is_patient(schema):
            self._refuse(
                schema, f"the schema registry has no schema {schema}; if it has it later, replay the dead letter."
            )

    def _is_patient(self, schema: SchemaId) -> bool:
        """Tell whether to wait for a schema that the registry does not have, since it may be behind."""
        now, patience = self._clock(), self._settings().patience_seconds
        first = self._missed.setdefault(schema, now)
        if now < self._impatient_until:
            return False
        if now - first < patience:
            return True
        self._impatient_until = now + IMPATIENT_PATIENCES * patience
        return False

    def _refuse(self, schema: SchemaId, reason: str) -> None:
        now = self._clock()
        self._missed.pop(schema, None)
        if len(self._refused) > MOST_REFUSED:
            self._refused = {each: refused for each, refused in self._refused.items() if now < refused.until}
        self._refused[schema] = _Refused(reason, now + REFUSED_SECONDS)


def _forget(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # asked for, so that asyncio does not report a failure that nobody waits for any more
