"""What a log entry says of an exception that a team's code raised, as HEADRACE_LOG_HANDLER_ERRORS asks for it.

A traceback is turned into text while the exception is handled: an exception that is kept with its frames keeps the
whole batch in memory.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Literal

Detail = Literal["full", "message", "type"]
"""Traceback and message, the message alone, or neither. The class's name is always there."""

MAX_MESSAGE_CHARACTERS = 1_000
MAX_TRACEBACK_CHARACTERS = 8_000
MAX_FRAMES = 30
"""The last frames of a traceback are kept: they are the team's own."""


def failure_fields(error: BaseException, detail: Detail, *, with_traceback: bool) -> dict[str, str]:
    """Return the fields `error_type`, `error` and `exception` of a log entry, as far as they are asked for."""
    fields = {"error_type": type(error).__name__}
    if detail != "type":
        fields["error"] = _bounded(text_of(error), MAX_MESSAGE_CHARACTERS)
    if detail == "full" and with_traceback:
        fields["exception"] = traceback_of(error)
    return fields


def text_of(error: BaseException) -> str:
    """Return the error's text; an error of a team's own may fail to give one."""
    try:
        return str(error)
    except Exception:
        return "(its text cannot be shown)"


def traceback_of(error: BaseException) -> str:
    """Return the traceback, from the first frame that is not the platform's on, with its causes; never raises."""
    try:
        frames = _first_of_the_team(error.__traceback__)
        text = "".join(traceback.TracebackException(type(error), error, frames, limit=-MAX_FRAMES).format())
    except Exception:
        return "(its traceback cannot be shown)"  # formatting asks the error's own class for texts
    return _bounded(text.rstrip(), MAX_TRACEBACK_CHARACTERS)


def _first_of_the_team(frames: TracebackType | None) -> TracebackType | None:
    first = frames
    while first is not None:
        module = str(first.tb_frame.f_globals.get("__name__", "headrace"))  # the code made of a signature has no name
        if module.partition(".")[0] != "headrace":
            return first
        first = first.tb_next
    return frames


def _bounded(text: str, characters: int) -> str:
    """Return the text, or its beginning and its end."""
    if len(text) <= characters:
        return text
    half = characters // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
