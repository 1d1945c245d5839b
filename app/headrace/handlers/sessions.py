"""Database sessions of a team's own, which commit by themselves and so outside of the batch's transaction."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from headrace.errors import HeadraceWarning
from headrace.fields import classes_in
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.handlers")

_SESSIONS = {
    "sqlalchemy": frozenset(
        {
            "AsyncConnection",
            "AsyncSession",
            "Connection",
            "Session",
            "async_scoped_session",
            "async_sessionmaker",
            "scoped_session",
            "sessionmaker",
        }
    ),
    "asyncpg": frozenset({"Connection", "Pool", "PoolConnectionProxy"}),
}
"""Classes by the package that defines them. A name is enough: nobody has to install what a team does not use."""


def warn_of_session(function: Callable[..., Any], where: str, *annotations: Any) -> None:
    """Warn if an annotation of a dependency, or of the parameter that takes it, names a database session."""
    for annotation in annotations:
        for part in classes_in(annotation):
            if not any(base.__name__ in _SESSIONS.get(_package(base), ()) for base in part.__mro__):
                continue
            sentence = (
                f"{where}: {part.__module__.partition('.')[0]}'s {part.__name__} commits by itself, so its SQL happens "
                "again each time the event runs again; write the SQL with `tx: Transaction`, a parameter of the "
                "handler, or with `headrace.sqlalchemy.BatchSession`, which commit together with the event."
            )
            code = getattr(function, "__code__", None)
            filename, line = (code.co_filename, code.co_firstlineno) if code is not None else (where, 0)
            logger.warning("own session in a handler", handler=where.partition(":")[0], reason=sentence)
            warnings.warn_explicit(sentence, HeadraceWarning, filename, line)
            return


def _package(model: type[Any]) -> str:
    return model.__module__.partition(".")[0]
