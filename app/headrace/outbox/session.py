"""The outbox for SQLAlchemy: a published event is one more object of the session, and commits or rolls back with it.

Imported when it is used, so that SQLAlchemy need not be installed. The table's mapping belongs to a registry of its
own: a team's metadata, and so Alembic's autogenerate, do not see it.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Column, LargeBinary, MetaData, SmallInteger, Table, Text, Uuid, event
from sqlalchemy.orm import Session, object_session, registry

from headrace.errors import ConfigurationError
from headrace.log.ports import NewRecord
from headrace.outbox.rows import Prepare, Wake, new_row
from headrace.publishing.publisher import AnyEvent

WRITTEN = "headrace.outbox"
"""The slots that a session has to wake, in its `info`."""


class OutboxRow:
    """A row of `headrace.outbox`; slot, number and time come from the database."""

    def __init__(self, **columns: Any) -> None:
        for name, value in columns.items():
            setattr(self, name, value)


registry().map_imperatively(
    OutboxRow,
    Table(
        "outbox",
        MetaData(schema="headrace"),
        Column("id", Uuid, primary_key=True),
        Column("service", Text, nullable=False),
        Column("bucket", SmallInteger, nullable=False),
        Column("topic", Text, nullable=False),
        Column("key", LargeBinary),
        Column("value", LargeBinary),
        Column("headers", LargeBinary, nullable=False),
    ),
)


class SessionOutbox:
    """Publishes in the transaction of a session that the team's own code has opened and commits."""

    def __init__(self, session: Any, service: str, prepare: Prepare, wake: Wake, max_bytes: int) -> None:
        if not hasattr(session, "add"):
            raise ConfigurationError(
                f"events.outbox() takes SQLAlchemy's AsyncSession or Session, or SQLModel's, not a "
                f"{type(session).__name__}; with asyncpg write `async with events.transaction() as tx`."
            )
        self._session = session
        self._service = service
        self._prepare = prepare
        self._wake = wake
        self._max_bytes = max_bytes

    def publish(self, event: AnyEvent, *, key: str | None = None, id: str | None = None) -> str:
        """Publish the event if and only if the session's transaction commits; return its id.

        It is written by the session's next flush, in the order of the calls, and a rollback (of a savepoint as well)
        takes it back. `key` and `id` are those of `events.publish`.
        Raises: ConfigurationError (not a declared event type), SchemaError, RecordTooLargeError.
        """
        checked = self._prepare(event, key=key, id=id)
        self.add(checked.record)
        return checked.envelope.id

    def add(self, record: NewRecord) -> None:
        """Publish the record if and only if the session's transaction commits. Raises: RecordTooLargeError."""
        row = new_row(record, self._max_bytes)
        added = OutboxRow(id=uuid.uuid4(), service=self._service, **row._asdict())
        self._session.add(added)
        self._remember(object_session(added), row.slot)

    def _remember(self, session: Session | None, slot: int) -> None:
        assert session is not None, "it was added to one"
        slots: set[int] | None = session.info.get(WRITTEN)
        if slots is None:
            slots = session.info[WRITTEN] = set()
            event.listen(session, "after_commit", self._committed)
        slots.add(slot)

    def _committed(self, session: Session) -> None:
        slots: set[int] = session.info[WRITTEN]
        if slots and not session.in_nested_transaction():
            self._wake(set(slots))
            slots.clear()
