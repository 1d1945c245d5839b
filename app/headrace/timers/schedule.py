"""Schedules: an event that leaves at each time that a cron expression names."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from headrace.cloudevents import check_key, declared_key, encode_record
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.event import event_type_of
from headrace.log.ports import NewRecord
from headrace.timers.changes import Due, SetTimer

PREFIX = "cron:"
"""How the timer of a schedule is named: with all that it is, so that a changed schedule is another timer."""


class Schedule:
    """One schedule of a subscription. `text` says what it is, and is its identity."""

    def __init__(self, source: str, event: object, cron: str, timezone: str) -> None:
        event_type = event_type_of(event)
        if event_type is None or isinstance(event, type):
            name = getattr(event, "__name__", type(event).__name__)
            raise ConfigurationError(
                f"schedule({name}, ...): it takes an event, such as {name}(); events of its kind leave."
            )
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ConfigurationError(
                f"schedule(timezone={timezone!r}): no such zone; write one as Europe/Berlin."
            ) from error
        try:
            CronSim(cron, datetime.now(self._zone))
        except CronSimError as error:
            raise ConfigurationError(
                f"schedule({cron!r}): {error}; its fields are minute, hour, day, month, day of week: '0 9 * * mon-fri'."
            ) from error
        self.event, self.event_type, self._cron, self._source = event, event_type, cron, source
        self.text = f"{event_type.type} {cron} {timezone} {event_type.encode(event).decode()}"
        self.name = PREFIX + hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()
        self.key = check_key(declared_key(event_type, event) or self.name)

    def after(self, time: datetime) -> datetime:
        """Return the first time of the schedule behind another one."""
        return next(CronSim(self._cron, time.astimezone(self._zone))).astimezone(UTC)

    def timer(self, time: datetime) -> SetTimer:
        """Return the timer of one of its times. The event's id follows from both, so that a copy is recognised."""
        identity = f"{self._source} {self.name} {time.timestamp():.0f}"
        envelope = Envelope(
            id=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
            source=self._source,
            type=self.event_type.type,
            time=time,
            datacontenttype="application/json",
            dataschema=self.event_type.dataschema,
            partitionkey=self.key,
        )
        data = self.event_type.encode(self.event)
        record: NewRecord = encode_record(envelope, data, topic=self.event_type.topic, key=self.key)
        return SetTimer(self.event_type.type, self.key, self.name, Due(None, time), record, cron=self.text)
