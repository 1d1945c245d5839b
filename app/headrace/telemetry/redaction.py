"""What a log line may not say: event data, secrets, and the messages of exceptions that may quote them."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from structlog.typing import EventDict

from headrace.errors import HandlerError, HeadraceError

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


class Redaction:
    """A structlog processor, the last before the renderer.

    An error of ours is one sentence and gets no traceback; what a handler or a library raised gets frames and class
    names. Messages of foreign exceptions (a validation error quotes its input, Postgres the row) are shown on a
    terminal and at DEBUG only: `shows_messages`.
    """

    def __init__(self, *, shows_messages: bool) -> None:
        self._shows_messages = shows_messages

    def __call__(self, _: object, __: str, fields: EventDict) -> EventDict:
        """Return the fields as plain values that may be written."""
        error = _error_of(fields.pop("exc_info", None))
        if not self._shows_messages and fields.get("logger") == "asyncio":
            fields["event"] = fields["event"].partition("\n")[0]  # what follows is the repr of a task and its exception
        plain = {name: HIDDEN if name in HIDDEN_FIELDS else _plain(value) for name, value in fields.items()}
        if error is not None:
            plain["error_type"] = type(error).__name__
            if isinstance(error, HeadraceError):
                plain["error"] = _plain(error)
            if not isinstance(error, HeadraceError) or isinstance(error, HandlerError):
                plain["exception"] = self._traceback(error)
        return plain

    def _traceback(self, error: BaseException) -> str:
        if self._shows_messages:
            return _without_passwords("".join(traceback.format_exception(error)).rstrip())
        return "\n".join(_frames_and_classes(error, set()))


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
