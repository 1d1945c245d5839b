"""A session of a team's own commits outside of the batch: the handler that takes one is named in a warning."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import asyncpg
import pytest
from fastapi import Depends

from headrace import Event, HeadraceWarning, Transaction
from headrace.handlers.signature import Signature


class Credited(Event, type="credited", topic="wallets", key="customer"):
    customer: str


def library(module: str, name: str, *bases: type[Any]) -> Any:
    """Return a class as the library defines it, which is not installed here."""
    return type(name, bases, {"__module__": module})


AsyncSession = library("sqlalchemy.ext.asyncio.session", "AsyncSession")
Session = library("sqlalchemy.orm.session", "Session")
SqlModelSession = library("sqlmodel.orm.session", "Session", Session)
OwnSession = library("shop.database", "OwnSession", AsyncSession)
Other = library("shop.database", "Session")


def generic(origin: Any, argument: Any) -> Any:
    """Return `origin[argument]`, for an argument that a type checker does not know."""
    return origin[argument]


def sync_dependency(annotation: Any) -> Callable[[], Any]:
    """Return a dependency with that return annotation."""

    def dependency() -> Any: ...

    dependency.__annotations__ = {"return": annotation}
    return dependency


def handler_of(dependency: Callable[[], Any], annotation: Any = Any) -> Callable[..., Any]:
    """Return a handler that takes the dependency as `db`."""

    async def handler(event: Credited, db: Any) -> None: ...

    handler.__annotations__ = {"event": Credited, "db": Annotated[annotation, Depends(dependency)], "return": None}
    return handler


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (handler_of(sync_dependency(Session)), "sqlalchemy's Session"),
        (handler_of(sync_dependency(generic(AsyncIterator, AsyncSession))), "sqlalchemy's AsyncSession"),
        (handler_of(sync_dependency(generic(Iterator, SqlModelSession))), "sqlmodel's Session"),
        (handler_of(sync_dependency(Any), SqlModelSession), "sqlmodel's Session"),
        (handler_of(sync_dependency(Any), OwnSession | None), "shop's OwnSession"),
        (handler_of(sync_dependency(asyncpg.Pool)), "asyncpg's Pool"),
        (handler_of(sync_dependency(AsyncIterator[asyncpg.Connection])), "asyncpg's Connection"),
    ],
)
def test_session_of_a_dependency_is_named_in_a_warning(
    function: Callable[..., Any], shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.warns(HeadraceWarning) as warned:
        Signature(function)
    (warning,) = warned
    assert f"handler: parameter 'db': {shown} commits by itself" in str(warning.message)
    assert "write the SQL with `tx: Transaction`" in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, function.__code__.co_firstlineno)
    assert "own session in a handler" in caplog.text


def test_session_below_another_dependency_is_found() -> None:
    class Repository: ...

    def repository(session: Annotated[Session, Depends(sync_dependency(Any))]) -> Repository:  # type: ignore[valid-type]
        return Repository()

    def handler(event: Credited, wallets: Annotated[Repository, Depends(repository)]) -> None: ...

    with pytest.warns(HeadraceWarning, match="repository: parameter 'session'"):
        Signature(handler, locals())


def test_nothing_else_is_warned_of() -> None:
    """pytest turns warnings into errors here."""
    Signature(handler_of(sync_dependency(Other), Other))
    Signature(handler_of(sync_dependency(dict[str, int])))

    async def handler(event: Credited, tx: Transaction) -> None: ...

    Signature(handler, locals())
