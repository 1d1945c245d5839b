"""What an error of asyncpg means for the batch: try again, look for the event that is at fault, or a bug of ours.

An infrastructure fault is never the event's fault, and the other way round; whatever is in neither list is a bug and
stays what it is. SQLSTATEs: PostgreSQL manual, appendix A.
"""

from __future__ import annotations

from typing import Literal

import asyncpg
from asyncpg.exceptions import _base as client_errors

from headrace.errors import BatchTooLargeError, ConflictError, DataRefusedError, StateError, StateUnavailableError

FailureKind = Literal["unavailable", "deadlock", "serialisation", "timeout", "other"]

CALL_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What a call to the database raises if the server, asyncpg or the network refuses it."""

CLIENT_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The same without what code of another kind raises as well: for places that also run a team's own."""

LOCK_NOT_AVAILABLE = "55P03"
"""The SQLSTATE of a lock that was not to be had in time."""

# Classes (two characters) and single states (five). A single state wins over its class.
_UNAVAILABLE = {
    "08",  # connection lost, refused, or its outcome unknown
    "28",  # a password that is being changed; at start, open_pool calls it a setting
    "3D000",  # the database is gone, likewise
    "40",  # deadlock, serialisation, outcome of a statement unknown
    "53",  # out of disk, memory or connections
    "57",  # shutdown, crash, starting up; a statement timed out or was cancelled
    "58",  # input or output failed under the server
    "25006",  # read-only: this server is no longer (or not yet) the primary
    "25P03",  # silent for too long within a transaction
    "25P04",  # the transaction took too long
    LOCK_NOT_AVAILABLE,
}
_REFUSED = {
    "22",  # a value that the type cannot hold: NUL in text, overflow, malformed JSON
    "23",  # a constraint
    "54",  # larger than a row, an index entry or a statement may be
    "40002",  # a constraint that was checked at commit
    "44000",  # a view's check option
    "P0001",  # `raise exception` in a trigger of the team's own
}
_LIMITS: dict[str, Literal["timeout", "memory"]] = {
    "57014": "timeout",  # the statement timeout, or somebody cancelled the statement
    "53200": "memory",
}
"""A smaller batch may stay below these."""
_TIMEOUTS = {"57014", LOCK_NOT_AVAILABLE, "25P03", "25P04"}
_GONE = (
    "connection is closed",
    "connection was closed",
    "pool is closed",
    "pool is closing",
    "released back to the pool",  # a pool takes a connection back the moment that it is lost
)


def classify(error: BaseException) -> StateError | None:
    """Return what to raise instead (with the error as its cause); None if the error is a bug.

    Give it only what came out of a call to the database: an OSError of other code would be taken for a lost connection.
    """
    if isinstance(error, StateError):
        return error
    if isinstance(error, client_errors.DataError):  # asyncpg could not encode an argument
        return DataRefusedError(f"Postgres was not asked: {_sentence(error)}.")
    state = sqlstate_of(error)
    if _among(state, _REFUSED):
        return DataRefusedError(f"Postgres refused the data: {_sentence(error)} (SQLSTATE {state}).")
    if (limit := _LIMITS.get(state)) is not None:
        return BatchTooLargeError(f"Postgres reached a limit: {_sentence(error)} (SQLSTATE {state}).", reason=limit)
    if _among(state, _UNAVAILABLE):
        return StateUnavailableError(f"Postgres asks to try again: {_sentence(error)} (SQLSTATE {state}).")
    if isinstance(error, TimeoutError):
        return StateUnavailableError("Postgres did not answer in time.")
    if isinstance(error, OSError):
        return StateUnavailableError(f"Postgres cannot be reached: {_sentence(error)}.")
    if _is_lost_connection(error):
        return StateUnavailableError(f"the connection to Postgres is gone: {_sentence(error)}.")
    return None


def was_refused(error: BaseException) -> bool:
    """True if Postgres has answered a statement with an error: nothing of it took effect, and the session lives.

    A translated error was refused if what caused it was.
    """
    if isinstance(error, StateError) and error.__cause__ is not None:
        return was_refused(error.__cause__)
    state = sqlstate_of(error)
    return bool(state) and not state.startswith(("08", "40003", "57P"))


def kind_of(error: BaseException) -> FailureKind:
    """Return the label for `db_errors_total`; a translated error counts as what caused it."""
    if isinstance(error, StateError) and error.__cause__ is not None:
        return kind_of(error.__cause__)
    state = sqlstate_of(error)
    if state == "40P01":
        return "deadlock"
    if state == "40001" or isinstance(error, ConflictError):
        return "serialisation"
    if state in _TIMEOUTS or isinstance(error, TimeoutError):
        return "timeout"
    return "unavailable" if isinstance(classify(error), StateUnavailableError) else "other"


def sqlstate_of(error: BaseException) -> str:
    """Return the code of an error that the server sent; empty for any other error."""
    return str(error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""


def _is_lost_connection(error: BaseException) -> bool:
    if isinstance(error, asyncpg.InterfaceError):
        return any(text in str(error) for text in _GONE)
    if isinstance(error, client_errors.InternalClientError):  # the session ended while nothing was asked of it
        return "cannot switch to state" in str(error)
    # A statement prepared before a migration, or a host list without the kind of server that was asked for.
    return isinstance(
        error,
        asyncpg.InvalidCachedStatementError
        | asyncpg.OutdatedSchemaCacheError
        | client_errors.TargetServerAttributeNotMatched,
    )


def _among(state: str, states: set[str]) -> bool:
    other = _UNAVAILABLE if states is _REFUSED else _REFUSED
    return state in states or (state[:2] in states and state not in other)


def _sentence(error: BaseException) -> str:
    """The error's first line: details and hints may quote whole rows."""
    text = str(error).strip().split("\n", 1)[0].rstrip(".")
    return text or type(error).__name__
