"""What is told from the error alone."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from headrace.database.failures import classify, kind_of
from headrace.errors import ConflictError, DataRefusedError, StateUnavailableError


def _error(sqlstate: str) -> asyncpg.PostgresError:
    fields = {"C": sqlstate, "M": "what the server said", "D": "a whole row", "S": "ERROR"}
    return asyncpg.PostgresError.new(fields)


_UNAVAILABLE = (
    "08006 08P01 28P01 3D000 40001 40003 40P01 53100 53200 53300 57014 57P01 57P03 58030 25006 25P03 25P04 55P03"
)


@pytest.mark.parametrize("sqlstate", _UNAVAILABLE.split())
def test_infrastructure_is_tried_again(sqlstate: str) -> None:
    assert isinstance(classify(_error(sqlstate)), StateUnavailableError)


@pytest.mark.parametrize("sqlstate", ["22001", "22003", "22021", "22P05", "23502", "23505", "40002", "44000", "54000"])
def test_data_are_refused(sqlstate: str) -> None:
    assert isinstance(classify(_error(sqlstate)), DataRefusedError)


@pytest.mark.parametrize("sqlstate", ["42601", "42P01", "42501", "25P02", "21000", "XX000", "P0002"])
def test_a_bug_is_not_translated(sqlstate: str) -> None:
    assert classify(_error(sqlstate)) is None


@pytest.mark.parametrize("error", [ConnectionResetError("peer"), TimeoutError(), OSError(28, "x")])
def test_a_lost_connection_is_tried_again(error: Exception) -> None:
    assert isinstance(classify(error), StateUnavailableError)


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), asyncio.CancelledError(), asyncpg.InterfaceError("x")]
)
def test_what_is_no_failure_of_the_database_is_left_alone(error: BaseException) -> None:
    assert classify(error) is None
    assert kind_of(error) == "other"


def test_details_that_may_quote_rows_are_not_repeated() -> None:
    assert "whole row" not in str(classify(_error("23505")))


def test_a_translated_error_counts_as_what_caused_it() -> None:
    translated = StateUnavailableError("again")
    translated.__cause__ = _error("40P01")
    assert classify(translated) is translated
    assert kind_of(translated) == "deadlock"
    assert kind_of(ConflictError("changed")) == "serialisation"
