"""What Postgres raises is told apart: infrastructure is a TransportError, a bug stays a bug."""

from __future__ import annotations

import asyncpg
import pytest

from headrace.errors import TransportError
from headrace.log.embedded_session import unavailable


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("no"), TimeoutError(), asyncpg.CannotConnectNowError("starting")]
)
def test_a_server_that_is_away_is_a_transport_error(error: Exception) -> None:
    with pytest.raises(TransportError, match="the embedded log cannot be reached"), unavailable():
        raise error


def test_a_wrong_statement_is_a_bug_and_stays_one() -> None:
    with pytest.raises(asyncpg.UndefinedTableError), unavailable():
        raise asyncpg.UndefinedTableError("no such table")
