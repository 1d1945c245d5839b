"""What Postgres raises is told apart: infrastructure is a TransportError, a bug stays a bug."""

from __future__ import annotations

import asyncpg
import pytest

from headrace.errors import TransportError
from headrace.log.embedded_session import unavailable

ENDED = asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
"""What asyncpg says of a statement on a session that ended while nothing was asked of it."""


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("no"), TimeoutError(), asyncpg.CannotConnectNowError("starting"), ENDED]
)
def test_a_server_that_is_away_is_a_transport_error(error: Exception) -> None:
    with pytest.raises(TransportError, match="the embedded log cannot be reached"), unavailable():
        raise error


def test_another_error_of_asyncpg_itself_is_a_bug_and_stays_one() -> None:
    with pytest.raises(asyncpg.InternalClientError), unavailable():
        raise asyncpg.InternalClientError("no such state")


def test_a_wrong_statement_is_a_bug_and_stays_one() -> None:
    with pytest.raises(asyncpg.UndefinedTableError), unavailable():
        raise asyncpg.UndefinedTableError("no such table")
