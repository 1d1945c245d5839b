"""Makes events of a team's objects and publishes them: `await events.publish(event)`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, overload

import msgspec

from headrace.cloudevents import ParsedEvent, check_lengths
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.event import Event, EventType, event_type_of
from headrace.log.ports import Log, Position
from headrace.publishing.checking import JSON, CheckedEvent, Trace, check_event, source_of
from headrace.publishing.sending import Instruments, send
from headrace.registry import Registry

AnyEvent = Event | msgspec.Struct
"""An instance of a declared event type: of a subclass of `Event`, or of a Struct with `@event`."""

YIELD_EVENTS = 200
"""Events checked before other tasks get a turn, about 3 ms."""


class Published(NamedTuple):
    """What became of a published event: its id, and where it is in the log."""

    id: str
    position: Position


class EventPublisher:
    """Publishes events of the service's declared types; `find` returns what it works with, as long as it runs."""

    def __init__(self, registry: Registry, find: Callable[[], tuple[Instruments, Log]]) -> None:
        self._registry = registry
        self._find = find

    @overload
    async def publish(self, event: AnyEvent, *, key: str | None = None, id: str | None = None) -> Published: ...
    @overload
    async def publish(self, event: Sequence[AnyEvent], *, key: str | None = None) -> list[Published]: ...
    async def publish(
        self, event: AnyEvent | Sequence[AnyEvent], *, key: str | None = None, id: str | None = None
    ) -> Published | list[Published]:
        """Return the event's id and position once the log has it; for a list of events a list, all or nothing checked.

        `key` overrides the key that the event type declares. `id` names the event: a second one of the same type and
        id has no second effect, so a call that may be repeated should give it.

        Cancel: safe; the publish continues, and whether the log has the events is unknown.
        Raises: ConfigurationError (a type is not declared, the platform does not run), SchemaError (data or key),
        RecordTooLargeError, TransportError (whether the log has the events is unknown; publish the same ids again).
        """
        tools, log = self._find()
        if not isinstance(event, Sequence):
            checked = [checked_event(self._registry, event, tools.tracing.carried, key=key, id=id)]
        elif id is not None:
            raise ConfigurationError("id= names one event; publish events that have ids of their own one by one.")
        else:
            checked = []
            for number, each in enumerate(event, 1):
                checked.append(checked_event(self._registry, each, tools.tracing.carried, key=key))
                if number % YIELD_EVENTS == 0:
                    await asyncio.sleep(0)
        if not checked:
            return []
        positions = await send(tools, log, checked, checked[0].envelope.traceparent)
        published = [Published(*each) for each in zip((each.envelope.id for each in checked), positions, strict=True)]
        return published if isinstance(event, Sequence) else published[0]


def checked_event(
    registry: Registry,
    event: object,
    trace: Trace,
    *,
    key: str | None = None,
    id: str | None = None,
    sequence: int | None = None,
    time: datetime | None = None,
) -> CheckedEvent:
    """Return the object as an event that may be published. Raises: ConfigurationError, EventError."""
    event_type = _declared_type(registry, event)
    envelope = Envelope(
        id=str(uuid.uuid4()) if id is None else id,
        source=source_of(registry.service, event_type.type),
        type=event_type.type,
        datacontenttype=JSON,
        partitionkey=key,
        sequence=None if sequence is None else str(sequence),
        time=time,
    )
    if id is not None or key is not None:
        check_lengths(envelope)
    return check_event(ParsedEvent(envelope, event_type.encode(event)), registry.types, datetime.now(UTC), trace)


def _declared_type(registry: Registry, event: object) -> EventType:
    event_type = event_type_of(event)
    if event_type is not None and registry.types.get(event_type.type) is not event_type:
        registry.complete()  # in a script nothing has started, which would have done it
    name = type(event).__name__
    if event_type is None:
        raise ConfigurationError(
            f"{name} cannot be published, since it is not an event type; declare it as "
            f'class {name}(Event, type="thing.happened", topic="things").'
        )
    if registry.types.get(event_type.type) is not event_type:
        raise ConfigurationError(
            f"{name} cannot be published, since the service does not declare it; write events.declare({name})."
        )
    return event_type
