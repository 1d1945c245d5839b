"""What a handler may ask for in its signature, apart from the event."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol, TypeVar, cast

from headrace.database.failures import classify, sqlstate_of
from headrace.database.pool import Connection
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError, StateUnavailableError

T = TypeVar("T")
RowT = TypeVar("RowT", contravariant=True)


class StateMarker:
    """Marks a parameter that takes the state of the event's key."""

    def __repr__(self) -> str:
        return "State"


State = Annotated[T, StateMarker()]
"""`wallet: State[Wallet]`: the value kept for the event's key; what the handler changes in it is saved."""


class States(Mapping[str, T]):
    """`wallets: States[Wallet]`: the states of the keys of a batch handler's list, by key; changes of them are saved.

    `wallets.of(event)` is the state of the event's key. Raises: ConfigurationError (not an event of the list).
    """

    def __init__(self, values: Mapping[str, T], keys: Mapping[int, str]) -> None:
        """`keys` of the events, by their id()."""
        self._values, self._keys = values, keys

    def of(self, event: object) -> T:
        """Return the state of the event's key."""
        key = self._keys.get(id(event))
        if key is None:
            raise ConfigurationError("of() takes an event of the list that the handler was called with, not a copy.")
        return self._values[key]

    def __getitem__(self, key: str) -> T:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Emit(Protocol):
    """`emit(event)`: the event leaves if and only if the handler's transaction commits.

    `key` overrides the key that the event type declares. The event is written as JSON at once: later changes of the
    object have no effect. With `after` (seconds or a timedelta) or `at` (a datetime with a zone) it leaves then: a
    timer. Its `name` lets a later `emit` move it, and `emit.cancel(Type, key, name)` cancel it; one without a name is
    cancelled together with all others of its type and key: `emit.cancel(Type, key)`.
    In a batch handler `cause` names the event of its list that the new one follows from; without it, that is the last.
    Raises: ConfigurationError (not a declared event type, a cause that is no event of the list).
    """

    def __call__(
        self,
        event: object,
        *,
        key: str | None = None,
        after: float | timedelta | None = None,
        at: datetime | None = None,
        name: str | None = None,
        cause: object | None = None,
    ) -> None: ...

    def cancel(self, model: type[object], key: str, name: str | None = None) -> None: ...


class Table(Protocol[RowT]):
    """`rows: Table[OrderRow]`: the rows of a projection; what is done to them commits with the event.

    A row is named by its key: one value, or one for each field of a key of several. Changes are written at the end of
    the batch, in their order. Raises: ConfigurationError (a column that is not there), ValidationError (a wrong value).
    """

    def put(self, row: RowT) -> None:
        """Write a whole row, new or not."""

    def change(self, *key: Any, **columns: Any) -> None:
        """Write some columns of a row; nothing happens if there is none."""

    def add(self, *key: Any, **numbers: Any) -> None:
        """Add to some columns, which begin at 0; if there is no row, it begins with the defaults of its class."""

    def delete(self, *key: Any) -> None:
        """Delete a row; nothing happens if there is none."""


class Step(Protocol):
    """`answer = await step("charge", charge, customer, total)`: a call whose answer is remembered, in an effect.

    If the effect runs again for the event, the step answers what it answered, and calls nothing. The answer is kept as
    JSON, and comes back as what `call` is annotated to return (`returns` overrides that; without one it is plain JSON).
    Cancel: a call that is cut off has no answer, and is made again with the same key.
    Raises: what `call` raises; ConfigurationError (a name that is used twice, an answer that is no JSON).
    """

    @property
    def key(self) -> str:
        """A key that is the same however often the effect runs for its event, and no other event's: 32 characters."""

    def key_of(self, name: str) -> str:
        """The same for one of several steps."""

    async def __call__(
        self, name: str, call: Callable[..., Awaitable[T]], *args: Any, returns: Any = None, **options: Any
    ) -> T: ...


class Transaction:
    """The batch's own transaction in Postgres: its SQL commits with state, emits and progress, or not at all.

    The methods are asyncpg's. Transaction control belongs to the platform and is refused.
    """

    def __init__(
        self, connection: Connection, envelope: Envelope | None = None, written_slots: set[int] | None = None
    ) -> None:
        self._connection = connection
        self.envelope = envelope
        """That of the event which is being handled."""
        self.written_slots = set() if written_slots is None else written_slots
        """Slots of the outbox that the batch has written to, so that its commit wakes their relay."""
        self.unavailable: StateUnavailableError | None = None
        """The failure of a statement that Postgres, not the handler, is to blame for; None without one."""
        self._refused: BaseException | None = None

    @property
    def connection(self) -> Connection:
        """asyncpg's connection inside the batch's transaction, for libraries that want one; do not close or keep it.

        `async with tx.connection.transaction()` is a savepoint: what fails in it can be tolerated.
        """
        return cast("Connection", _Connection(self))

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run statements; return the last command's status."""
        return str(await self._guard(query, self._connection.execute, *args, timeout=timeout))

    async def executemany(self, query: str, args: Any, *, timeout: float | None = None) -> None:
        """Run one statement for each row of arguments."""
        await self._guard(query, self._connection.executemany, args, timeout=timeout)

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """Run a query; return its rows."""
        return list(await self._guard(query, self._connection.fetch, *args, timeout=timeout))

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """Run a query; return its first row, or None."""
        return await self._guard(query, self._connection.fetchrow, *args, timeout=timeout)

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """Run a query; return the first column of its first row, or None."""
        return await self._guard(query, self._connection.fetchval, *args, timeout=timeout)

    async def check(self) -> None:
        """Raise what a statement raised and the handler swallowed, if Postgres has aborted the whole transaction."""
        if self.unavailable is not None:
            raise self.unavailable
        if self._refused is None:
            return
        try:
            await self._connection.execute("select")
        except Exception:
            raise self._refused from None

    def note(self, error: BaseException) -> None:
        """Remember what a statement raised; called by those that use the connection themselves."""
        failure = classify(error)
        if isinstance(failure, StateUnavailableError):
            self.unavailable = failure
        elif sqlstate_of(error):
            self._refused = error

    async def _guard(self, query: str, call: Any, *args: Any, timeout: float | None) -> Any:
        if _CONTROL.search(query):
            raise ConfigurationError(
                "a handler's Transaction commits with its batch; "
                "remove BEGIN, COMMIT, ROLLBACK and SAVEPOINT from its SQL."
            )
        try:
            return await call(query, *args, timeout=timeout)
        except Exception as error:
            self.note(error)
            raise


class _Connection:
    """The connection as `Transaction.connection` gives it: statements are guarded, the rest is asyncpg's."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def __getattr__(self, name: str) -> Any:
        if name in _GUARDED:
            return getattr(self._transaction, name)
        return getattr(self._transaction._connection, name)


_GUARDED = frozenset({"execute", "executemany", "fetch", "fetchrow", "fetchval"})


_CONTROL = re.compile(
    r"(?:^|;)\s*(begin|commit|rollback|abort|end|savepoint|release|start\s+transaction|prepare\s+transaction)\b(?!\s*\$)",
    re.IGNORECASE,
)
