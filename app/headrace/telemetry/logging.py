"""Logs: one JSON object a line, or readable lines on a terminal, without event data and secrets.

Our loggers are structlog's in front of the standard library's, so that ours and those of uvicorn, aiokafka and asyncpg
go through one handler and one formatter, and a team's own logging set-up, or pytest's, sees ordinary records.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, TextIO, cast

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor

from headrace.settings import Settings
from headrace.telemetry.redaction import Redaction

FIELDS = "headrace_fields"
"""The attribute of a log record that carries our fields: each on its own could clash with the record's attributes."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger: `logger.warning("claim lost", subscription=..., partition=...)`. Usable before any set-up."""
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=_processors(),
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def _processors() -> list[Processor]:
    """Return what makes an ordinary record of an entry."""
    return [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.processors.StackInfoRenderer(),
        _to_record,
    ]


def configure_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Send every logger of the process to the stream (standard error), as HEADRACE_LOG_FORMAT and _LEVEL say.

    Replaces what writes to the terminal (ours of an earlier call, `logging.basicConfig`'s) and keeps other handlers.
    structlog's own loggers, which print to standard output by default, go the same way unless the team has configured
    them.
    uvicorn must be started with `log_config=None`, or it puts its own handlers back. With HEADRACE_LOG_FORMAT=none
    nothing is touched: entries are ordinary records of the application's logging, and their attribute `headrace_fields`
    holds our fields.
    """
    if settings.log_format == "none":
        return
    if not structlog.is_configured():
        structlog.configure(
            _processors(), structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory()
        )
    handler = _StandardError() if stream is None else _Handler(stream)
    is_terminal = handler.stream.isatty()
    is_console = settings.log_format == "console" or (settings.log_format == "auto" and is_terminal)
    is_debug = settings.log_level == "DEBUG"
    redaction = Redaction(shows_messages=is_console or is_debug, detail=settings.log_handler_errors)
    handler.setFormatter(_formatter(is_console, redaction, has_colors=is_terminal))
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not _writes_to_terminal(other)] + [handler]
    root.setLevel(settings.log_level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "aiokafka", "asyncpg", "asyncio"):
        other = logging.getLogger(name)
        other.handlers, other.propagate, other.disabled = [], True, False
        other.setLevel(logging.NOTSET)
    if not is_debug:
        logging.getLogger("aiokafka").setLevel(logging.ERROR)  # it warns at every reconnect
        for name in ("aiokafka.cluster", "aiokafka.consumer.group_coordinator"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors that heal: a new topic, a loading coordinator
        logging.getLogger("asyncpg").setLevel(logging.ERROR)  # its pool warns at each attempt of an outage
        logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # lost spans are counted in a metric


class _Handler(logging.StreamHandler[TextIO]):
    """A class of our own, so that a second set-up finds the handler and replaces it."""


class _StandardError(_Handler):
    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr  # looked up each time: it may have been replaced, and the old one closed
        super().emit(record)


def _writes_to_terminal(handler: logging.Handler) -> bool:
    if type(handler) is logging.StreamHandler:
        return handler.stream in (sys.stderr, sys.stdout)
    return isinstance(handler, _Handler)


def _formatter(is_console: bool, redaction: Redaction, has_colors: bool) -> logging.Formatter:
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=has_colors, exception_formatter=structlog.dev.plain_traceback)
        if is_console
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_from_record],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            redaction,
            renderer,
        ],
    )


def _json(fields: EventDict, **_: Any) -> str:
    first = {name: fields.pop(name) for name in ("timestamp", "level", "logger", "event") if name in fields}
    return json.dumps({**first, **fields}, ensure_ascii=False)


def _to_record(_: Any, __: str, fields: EventDict) -> tuple[tuple[Any, ...], dict[str, Any]]:
    options = {name: fields.pop(name) for name in structlog.stdlib.LOG_KWARG_NAMES if name in fields}
    return (fields.pop("event"),), {**options, "extra": {FIELDS: dict(fields)}}


def _from_record(_: Any, __: str, fields: EventDict) -> EventDict:
    record: logging.LogRecord = fields["_record"]
    own: EventDict = getattr(record, FIELDS, {})
    return {**own, **fields, "level": record.levelname.lower(), "logger": record.name}


def _add_trace(_: Any, __: str, fields: EventDict) -> EventDict:
    """Add the current span, which is the record's own: a record is formatted by the code that logs it."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        fields["trace_id"] = f"{context.trace_id:032x}"
        fields["span_id"] = f"{context.span_id:016x}"
    return fields
