"""What a client may ask of a table, and the query that answers it: filters, one order, pages by key."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from headrace.errors import ConfigurationError
from headrace.http.problems import Problem
from headrace.projections.projection import Projection
from headrace.queries.waiting import WAIT_SECONDS, After, Wait
from headrace.tables.columns import ORDERED
from headrace.tables.table import SCHEMA, TableType, quoted

RESERVED = ("sort", "limit", "next", "after", "wait")
LEAST, MOST = "_from", "_to"


class Query(NamedTuple):
    """A statement and its arguments."""

    statement: str
    arguments: list[Any]


def asked_class(projection: Projection) -> type[BaseModel]:
    """Return the class of a list's parameters. Raises: ConfigurationError (a column has a parameter's name)."""
    table = projection.table
    fields: dict[str, Any] = {}
    for column in table.columns.values():
        if column.is_json or column.type == "bytea":
            continue
        fields[column.name] = (column.annotation | None, Field(None, description="Only rows with this value."))
        if column.type in ORDERED:
            fields[column.name + LEAST] = (column.annotation | None, Field(None, description="From this value on."))
            fields[column.name + MOST] = (column.annotation | None, Field(None, description="Up to this value."))
    if taken := sorted(set(RESERVED) & fields.keys()):
        raise ConfigurationError(
            f"the projection {projection.name!r}: the field {taken[0]!r} is also a parameter of its routes; rename it."
        )
    orders = sortable(table)
    names: Any = Literal[tuple(sign + name for name in orders for sign in ("", "-"))]
    fields["sort"] = (names, Field(table.key[0], description="The order; `-` before the name turns it around."))
    fields["limit"] = (int, Field(50, ge=1, le=500))
    fields["next"] = (str | None, Field(None, description="`next` of the page before.", max_length=8_000))
    fields["after"] = (After, None)
    fields["wait"] = (Wait, WAIT_SECONDS)
    config = ConfigDict(extra="forbid")
    made: type[BaseModel] = create_model(f"{table.model.__name__}Query", __config__=config, **fields)
    return made


def sortable(table: TableType) -> list[str]:
    """Return the columns that rows may be ordered by: those whose values all have a place in an order."""
    return [
        each.name for each in table.columns.values() if not (each.is_json or each.is_nullable or each.type == "bytea")
    ]


def listing(table: TableType, asked: Mapping[str, Any]) -> Query:
    """Return the query of a page, and one row more. Raises: Problem 422 (`next` is not one of this order)."""
    conditions, arguments = [], list[Any]()
    for column in table.columns.values():
        for suffix, comparison in (("", "="), (LEAST, ">="), (MOST, "<=")):
            value = asked.get(column.name + suffix)
            if value is not None and column.name + suffix in asked:
                arguments.append(column.dump(value))
                conditions.append(f'"{column.name}" {comparison} ${len(arguments)}::{column.type}')
    order, is_down = _order(table, asked["sort"])
    if asked["next"] is not None:
        values = _values(table, asked["sort"], asked["next"])
        places = [f"${len(arguments) + n}::{table.columns[name].type}" for n, name in enumerate(order, 1)]
        arguments += values
        sign = "<" if is_down else ">"
        conditions.append(f"({', '.join(quoted(order))}) {sign} ({', '.join(places)})")
    arguments.append(asked["limit"] + 1)
    where = f"where {' and '.join(conditions)} " if conditions else ""
    direction = " desc" if is_down else ""
    return Query(
        f"select {', '.join(quoted(table.columns))} from {SCHEMA}.{table.name} {where}"  # noqa: S608 - checked names
        f"order by {', '.join(name + direction for name in quoted(order))} limit ${len(arguments)}",
        arguments,
    )


def one(table: TableType, key: list[Any]) -> Query:
    """Return the query of one row."""
    conditions = " and ".join(f"{name} = ${place}" for place, name in enumerate(quoted(table.key), 1))
    names = ", ".join(quoted(table.columns))
    return Query(f"select {names} from {SCHEMA}.{table.name} where {conditions}", key)  # noqa: S608 - checked names


def following(table: TableType, sort: str, row: Mapping[str, Any]) -> str:
    """Return `next` of a page that ends with the row."""
    order, _ = _order(table, sort)
    values = [table.columns[name].adapter.dump_python(row[name], mode="json") for name in order]
    return base64.urlsafe_b64encode(msgspec.json.encode([sort, *values])).decode().rstrip("=")


def _order(table: TableType, sort: str) -> tuple[list[str], bool]:
    first = sort.removeprefix("-")
    return [first, *(name for name in table.key if name != first)], sort.startswith("-")


def _values(table: TableType, sort: str, token: str) -> list[Any]:
    order, _ = _order(table, sort)
    try:
        asked, *values = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if asked != sort:
            raise ValueError("another order")
        columns = [table.columns[name] for name in order]
        return [each.dump(each.checked(value)) for each, value in zip(columns, values, strict=True)]
    except (ValueError, TypeError, ValidationError, msgspec.DecodeError) as error:
        detail = "next: it is not from a page of this order; begin again without it."
        errors = [{"location": "query.next", "message": detail}]
        raise Problem(422, "parameters", "The request's parameters are wrong", detail, errors=errors) from error
