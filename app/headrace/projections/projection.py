"""What a team declares: `orders = events.projection("orders", OrderRow, key="order")`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from headrace.errors import ConfigurationError
from headrace.event import EventType
from headrace.handlers.policy import PolicyOptions
from headrace.handlers.signature import Signature
from headrace.handlers.subscription import Subscription
from headrace.tables.columns import Column
from headrace.tables.table import SCHEMA, Index, TableType

if TYPE_CHECKING:
    import sqlalchemy
    from fastapi import APIRouter

    RouterBuilder = Callable[["Projection", str, Sequence[Any] | None], APIRouter]
    """Makes the routes of a projection under a path, with the dependencies that say who may read."""


class Projection(Subscription):
    """A subscription that writes the rows of one table; see `headrace.projections`."""

    table: TableType

    def __init__(
        self,
        name: str,
        model: type[Any],
        *,
        key: Index,
        indexes: Iterable[Index],
        table: str | None,
        service: str,
        build_router: RouterBuilder,
        **options: Unpack[PolicyOptions],
    ) -> None:
        super().__init__(name, "earliest", service=service, **options)
        self._build_router = build_router
        where = f"the projection {name!r}"
        self.table = TableType(model, table or name.replace("-", "_").replace(".", "_"), key, indexes, where)

    def router(self, prefix: str | None = None, *, dependencies: Sequence[Any] | None = None) -> APIRouter:
        """Return routes that list, filter, sort and page the rows, and read one by its key: `orders.router("/orders")`.

        `prefix` is their path (default: the projection's name); `dependencies` say who may: FastAPI's `Depends`,
        instead of the scope `read`. Raises: ConfigurationError.
        """
        return self._build_router(self, prefix or f"/{self.name}", dependencies)

    @cached_property
    def selectable(self) -> sqlalchemy.Table:
        """The table as SQLAlchemy's, to select from: `select(orders.selectable)`. It needs SQLAlchemy."""
        import sqlalchemy
        from sqlalchemy.dialects import postgresql

        kinds: dict[str, Any] = {
            "text": sqlalchemy.Text, "boolean": sqlalchemy.Boolean, "bigint": sqlalchemy.BigInteger,
            "double precision": sqlalchemy.Double, "numeric": sqlalchemy.Numeric, "date": sqlalchemy.Date,
            "timestamptz": sqlalchemy.DateTime(timezone=True), "interval": sqlalchemy.Interval,
            "uuid": sqlalchemy.Uuid, "bytea": sqlalchemy.LargeBinary, "jsonb": postgresql.JSONB,
        }  # fmt: skip

        def column(each: Column) -> Any:
            is_key = each.name in self.table.key
            return sqlalchemy.Column(each.name, kinds[each.type], primary_key=is_key, nullable=each.is_nullable)

        columns = [column(each) for each in self.table.columns.values()]
        return sqlalchemy.Table(self.table.name, sqlalchemy.MetaData(schema=SCHEMA), *columns)

    def _add(
        self,
        function: Callable[..., Any],
        event_types: list[EventType],
        names: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        super()._add(function, event_types, names, options)
        handler = self.handlers[event_types[0].type]
        if asks := _more_than_rows(handler.signature):
            raise ConfigurationError(
                f"the projection {self.name!r}, handler {handler.name}: it {asks}; a projection only writes rows, so "
                "that it can be built again: take the event, Envelope and Table, and leave the rest to a subscription."
            )


def _more_than_rows(signature: Signature) -> str:
    """Say what a handler does beside writing rows; empty if nothing."""
    if signature.is_async:
        return "is async"
    if signature.is_batch:
        return "takes a list, though rows are written by the batch anyway"
    if signature.states:
        return "asks for a State"
    if signature.wants_transaction:
        return "asks for a Transaction"
    if signature.dependencies:
        return "asks for a dependency"
    if signature.wants_emit or signature.emits:
        return "emits"
    return ""
