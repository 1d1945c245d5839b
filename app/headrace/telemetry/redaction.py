"""Takes out of a log entry what it must not hold: event data, secrets, and messages that may quote them."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from structlog.typing import EventDict

from headrace.errors import HandlerError, HeadraceError
from headrace.telemetry.failures import Detail, failure_fields

HIDDEN = "(hidden)"
HIDDEN_FIELDS = frozenset(
    {
        "data",
        "event_data",
        "payload",
        "body",
        "value",
        "headers",
        "authorization",
        "api_key",
        "password",
        "secret",
        "token",
    }
)
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s/@]+@")


PLATFORM_LOGGERS = frozenset({"headrace", "asyncio", "aiokafka", "asyncpg", "opentelemetry"})
"""What these log may quote an event; exceptions that uvicorn and the team's own loggers log are the team's."""


class Redaction:
    """A structlog processor, the last before the renderer.

    An error of ours is one sentence and gets no traceback. Of another exception that the platform logs, JSON has frames
    and class names, since its message may quote an event (a validation error its input, Postgres the row); a terminal
    and DEBUG have the messages, too (`shows_messages`). What the team's code lets out of a route, or logs itself, is
    written as HEADRACE_LOG_HANDLER_ERRORS says (`detail`), but never without its frames.
    """

    def __init__(self, *, shows_messages: bool, detail: Detail = "full") -> None:
        self._shows_messages = shows_messages
        self._detail = detail

    def __call__(self, _: object, __: str, fields: EventDict) -> EventDict:
        """Return the fields as plain values that may be written."""
        error = _error_of(fields.pop("exc_info", None))
        logger = str(fields.get("logger", "headrace")).partition(".")[0]
        if not self._shows_messages and logger == "asyncio":
            fields["event"] = fields["event"].partition("\n")[0]  # what follows is the repr of a task and its exception
        if error is not None:
            fields.update(self._of_error(error, is_of_team=logger not in PLATFORM_LOGGERS))
        return {name: HIDDEN if name in HIDDEN_FIELDS else _plain(value) for name, value in fields.items()}

    def _of_error(self, error: BaseException, *, is_of_team: bool) -> dict[str, str]:
        fields = {"error_type": type(error).__name__}
        if isinstance(error, HeadraceError):
            fields["error"] = str(error)
            if not isinstance(error, HandlerError):
                return fields
        if is_of_team:
            fields |= failure_fields(error, self._detail, with_traceback=True)
        elif self._shows_messages:
            fields["exception"] = "".join(traceback.format_exception(error)).rstrip()
        if "exception" not in fields:
            fields["exception"] = "\n".join(_frames_and_classes(error, set()))
        return fields


def _frames_and_classes(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _frames_and_classes(before, seen)
        yield "which led to:"
    yield from (line.rstrip() for line in traceback.format_tb(error.__traceback__))
    yield f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield "one of the group:"
            yield from _frames_and_classes(part, seen)


def _error_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _without_passwords(value)
    if isinstance(value, HeadraceError):
        return _without_passwords(str(value))
    if isinstance(value, datetime | UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): HIDDEN if name in HIDDEN_FIELDS else _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    return f"<{type(value).__qualname__}>"  # the repr of a model is its data


def _without_passwords(text: str) -> str:
    return _URL_PASSWORD.sub(rf"\1{HIDDEN}@", text) if "://" in text else text
