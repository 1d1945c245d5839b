"""What a log entry says of an exception of a team's code."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headrace.telemetry.failures import Detail, failure_fields, text_of, traceback_of
from headrace.telemetry.rate_limit import OncePerMinute


class MuteError(Exception):
    """As a team may write it: its text cannot be asked for."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def caught(error: Exception) -> Exception:
    try:
        raise error
    except Exception as raised:
        return raised


@pytest.mark.parametrize(
    ("detail", "with_traceback", "names"),
    [
        ("full", True, ["error_type", "error", "exception"]),
        ("full", False, ["error_type", "error"]),
        ("message", True, ["error_type", "error"]),
        ("type", True, ["error_type"]),
    ],
)
def test_detail_decides_what_is_said(detail: Detail, with_traceback: bool, names: list[str]) -> None:
    fields = failure_fields(caught(ValueError("k3 is sold out")), detail, with_traceback=with_traceback)
    assert list(fields) == names
    assert ("k3" in str(fields)) == (detail != "type")


def test_traceback_names_the_line_and_the_cause() -> None:
    try:
        try:
            raise KeyError("k3")
        except KeyError as error:
            raise ValueError("sold out") from error
    except ValueError as error:
        text = traceback_of(error)
    assert "KeyError: 'k3'" in text and text.endswith("ValueError: sold out")
    assert __file__ in text


def test_frames_of_the_platform_before_the_teams_are_left_out() -> None:
    def team() -> float:
        raise ValueError("sold out")

    text = traceback_of(raised_inside_the_platform(team))
    assert "in team" in text and "rate_limit.py" not in text


def test_fault_of_the_platform_keeps_its_frames() -> None:
    assert "rate_limit.py" in traceback_of(raised_inside_the_platform(None))  # type: ignore[arg-type]


def raised_inside_the_platform(clock: Callable[[], float]) -> BaseException:
    """Return what comes out of a function of the platform that calls the clock, as its caller there would see it."""
    with pytest.raises((ValueError, TypeError)) as raised:
        OncePerMinute(clock).held_back("x")
    return raised.value.with_traceback(raised.tb.tb_next)


def test_text_is_bounded_and_keeps_its_two_ends() -> None:
    error = caught(ValueError("begin" + "x" * 100_000 + "end"))
    fields = failure_fields(error, "full", with_traceback=True)
    assert len(fields["error"]) < 1_100 and len(fields["exception"]) < 8_100
    assert fields["error"].startswith("begin") and fields["error"].endswith("end")
    assert __file__ in fields["exception"]


def test_deep_recursion_keeps_the_last_frames() -> None:
    def down(depth: int) -> None:
        if depth == 0:
            raise ValueError("the bottom")
        [down, up][depth % 2](depth - 1)

    def up(depth: int) -> None:
        down(depth)  # two functions, since equal frames in a row are folded

    try:
        down(200)
    except ValueError as error:
        text = traceback_of(error)
    assert text.endswith("ValueError: the bottom")
    assert text.count("File ") == 30


def test_error_that_cannot_give_its_text_is_still_told() -> None:
    error = caught(MuteError())
    assert text_of(error) == "(its text cannot be shown)"
    assert "MuteError" in traceback_of(error)
