"""What is printed does nothing to a terminal, whatever the data hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.cli.output import age, harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ümläute, 漢字", "plain text, ümläute, 漢字"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\tand\rmore", "two\\nlines\\tand\\rmore"),
        ("\u202eright to left\u2028", "\\u202eright to left\\u2028"),
        ("\ud800", "\\ud800"),
        (5, "5"),
    ],
)
def test_characters_that_act_on_a_terminal_are_escaped(text: object, shown: str) -> None:
    assert harmless(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (3_599, "60 min"), (7_200, "2 h"), (200_000, "2 d")],
)
def test_age_is_told_in_the_largest_unit(seconds: float, shown: str) -> None:
    assert age(datetime.now(UTC) - timedelta(seconds=seconds)) == shown


def test_nothing_has_no_age() -> None:
    assert age(None) == "-"
