"""The options that say which dead letters are meant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from headrace.cli.dead_letter_filter import moment


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90s", timedelta(seconds=90)),
        ("30min", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(7)),
    ],
)
def test_time_may_be_an_age(text: str, age: timedelta) -> None:
    before = datetime.now(UTC)
    found = moment(text)
    assert before - age <= found <= datetime.now(UTC) - age


def test_time_with_a_zone_is_kept_and_one_without_is_local() -> None:
    assert moment("2031-05-01T12:00:00+02:00") == datetime(2031, 5, 1, 10, tzinfo=UTC)
    assert moment("2031-05-01") == datetime(2031, 5, 1).astimezone(UTC)


@pytest.mark.parametrize("text", ["yesterday", "2 h", "h", "", "2031-13-01", "-5min", "9999999d"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment(text)
