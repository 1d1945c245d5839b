from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry import trace

from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.telemetry.logging import configure_logging, get_logger
from headrace.telemetry.trace_context import parse

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
QUOTED = "-".join(["ann", "owes", "77"])
"""Data that an exception quotes; not spelled out, since a traceback shows lines of source."""
CONFIGURED = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "aiokafka",
    "asyncpg",
    "asyncio",
    "opentelemetry",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def loggers_are_put_back() -> Iterator[None]:
    loggers = [logging.getLogger(), *map(logging.getLogger, CONFIGURED)]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(Settings(**settings), stream)
    return stream


def test_a_log_entry_is_one_json_object_a_line() -> None:
    stream = configured()
    get_logger("headrace.engine").bind(subscription="wallets").warning("claim lost", partition=3, note="two\nlines")
    (entry,) = lines(stream)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "headrace.engine",
        "event": "claim lost",
        "subscription": "wallets",
        "partition": 3,
        "note": "two\nlines",
    }
    assert list(json.loads(stream.getvalue()))[:4] == ["timestamp", "level", "logger", "event"]


def test_the_standard_library_s_loggers_come_out_alike() -> None:
    stream = configured()
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    logging.getLogger("asyncpg").error("odd %s", "thing")
    assert [(entry["logger"], entry["level"], entry["event"]) for entry in lines(stream)] == [
        ("uvicorn.error", "info", "Started server process [7]"),
        ("asyncpg", "error", "odd thing"),
    ]


def test_structlog_s_loggers_come_out_alike(capsys: pytest.CaptureFixture[str]) -> None:
    """By default they print to standard output, in another format."""
    logger = structlog.get_logger("shop.mail")  # as a module does, before anything is set up
    stream = configured()
    with structlog.contextvars.bound_contextvars(correlation_id="c1"):
        logger.info("mail", about="xmas-7")
    (entry,) = lines(stream)
    assert (entry["logger"], entry["event"], entry["about"], entry["correlation_id"]) == (
        *("shop.mail", "mail"),
        *("xmas-7", "c1"),
    )
    assert capsys.readouterr().out == ""


def test_structlog_is_left_alone_if_a_team_has_configured_it() -> None:
    own: list[Any] = [structlog.processors.JSONRenderer()]
    structlog.configure(own)
    configured()
    assert structlog.get_config()["processors"] is own


def test_fields_may_have_the_names_of_a_record_s_own_attributes() -> None:
    stream = configured()
    get_logger("headrace").info("started", name="shop", module="m", args="a", process="p", message="50 %")
    (entry,) = lines(stream)
    assert (entry["name"], entry["module"], entry["args"], entry["message"]) == ("shop", "m", "a", "50 %")
    assert entry["event"] == "started"


def test_an_entry_carries_the_current_trace() -> None:
    stream = configured()
    context = parse(TRACEPARENT)
    assert context is not None
    with trace.use_span(trace.NonRecordingSpan(context)):
        get_logger("headrace").info("inside")
    get_logger("headrace").info("outside")
    inside, outside = lines(stream)
    assert inside["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert inside["span_id"] == "00f067aa0ba902b7"
    assert "trace_id" not in outside


def test_bound_context_variables_are_written() -> None:
    stream = configured()
    with structlog.contextvars.bound_contextvars(correlation_id="c1"):
        get_logger("headrace").info("inside")
    assert lines(stream)[0]["correlation_id"] == "c1"


def test_the_level_is_what_the_settings_say() -> None:
    stream = configured(log_level="WARNING")
    logger = get_logger("headrace")
    logger.info("unheard")
    logger.warning("heard")
    assert [entry["event"] for entry in lines(stream)] == ["heard"]


def test_aiokafka_s_chatter_and_the_access_log_need_debug() -> None:
    stream = configured()
    logging.getLogger("aiokafka.conn").warning("reconnecting")
    logging.getLogger("aiokafka").error("broken")
    logging.getLogger("uvicorn.access").info("GET /health/live 200")
    assert [entry["event"] for entry in lines(stream)] == ["broken"]
    stream = configured(log_level="DEBUG")
    logging.getLogger("aiokafka.conn").warning("reconnecting")
    logging.getLogger("uvicorn.access").info("GET /health/live 200")
    assert [entry["event"] for entry in lines(stream)] == ["reconnecting", "GET /health/live 200"]


def test_users_mistake_has_no_traceback_and_a_crash_has_one() -> None:
    stream = configured()
    logger = get_logger("headrace")
    for error in (ConfigurationError("HEADRACE_LOG is wrong."), RuntimeError("boom")):
        try:
            raise error
        except Exception:
            logger.exception("cannot start")
    mistake, crash = lines(stream)
    assert mistake["error"] == "HEADRACE_LOG is wrong."
    assert "exception" not in mistake
    assert "test_logging.py" in crash["exception"]


def test_auto_is_readable_on_a_terminal_and_json_elsewhere() -> None:
    terminal = Terminal()
    configure_logging(Settings(), terminal)
    get_logger("headrace").info("ready", port=8000)
    assert "ready" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    assert lines_of_json(configured()) == 1


def lines_of_json(stream: io.StringIO) -> int:
    get_logger("headrace").info("ready")
    return len(lines(stream))


def test_console_format_works_without_terminal_and_colours() -> None:
    stream = configured(log_format="console")
    get_logger("headrace").info("ready", port=8000)
    assert "port=8000" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()


def test_a_second_set_up_replaces_the_first() -> None:
    first, second = configured(), configured()
    get_logger("headrace").info("once")
    assert lines(first) == []
    assert len(lines(second)) == 1


def test_handlers_of_the_application_and_of_tests_stay(caplog: pytest.LogCaptureFixture) -> None:
    configured()
    get_logger("headrace").info("seen by both", topic="wallets")
    assert caplog.records[-1].getMessage() == "seen by both"


def test_standard_error_is_the_one_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    get_logger("headrace").info("ready")
    assert json.loads(capsys.readouterr().err)["event"] == "ready"


def test_a_logger_works_before_any_set_up_as_an_ordinary_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        get_logger("headrace.early").info("early", topic="wallets")
    assert caplog.records[-1].getMessage() == "early"


def test_exception_of_a_route_keeps_its_message() -> None:
    """As uvicorn logs what the application lets out; the platform's own loggers leave messages out of JSON."""
    stream = configured()
    try:
        raise RuntimeError(QUOTED)
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
        logging.getLogger("shop.taxes").exception("cannot tax")
        get_logger("headrace.engine").exception("unexpected")
    route, own, platform = lines(stream)
    for entry in (route, own):
        assert (entry["error_type"], entry["error"]) == ("RuntimeError", QUOTED)
        assert entry["exception"].endswith(f"RuntimeError: {QUOTED}")
        assert "test_logging.py" in entry["exception"]
    assert platform["exception"].endswith("builtins.RuntimeError")
    assert QUOTED not in str(platform)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_messages_of_routes_can_be_left_out(log_format: str) -> None:
    stream = configured(log_format=log_format, log_handler_errors="type")
    try:
        raise RuntimeError(QUOTED)
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    assert "RuntimeError" in stream.getvalue() and "test_logging.py" in stream.getvalue()
    assert QUOTED not in stream.getvalue()


def test_traceback_is_a_field_in_json_and_text_on_a_terminal() -> None:
    fields = {"error": "k3 is sold out", "exception": "Traceback ...\nValueError: k3 is sold out"}
    stream = configured()
    get_logger("headrace.engine").warning("a handler raised", **fields)
    assert lines(stream)[0].items() >= fields.items()
    stream = configured(log_format="console")
    get_logger("headrace.engine").warning("a handler raised", **fields)
    assert stream.getvalue().endswith("\nTraceback ...\nValueError: k3 is sold out\n")


def test_format_none_leaves_logging_to_the_application() -> None:
    loggers = [logging.getLogger(), *map(logging.getLogger, CONFIGURED)]
    own = logging.StreamHandler(io.StringIO())
    for logger in loggers:
        logger.handlers, logger.propagate = [own], False
        logger.setLevel(logging.CRITICAL)
    stream = configured(log_format="none")
    for logger in loggers:
        assert (logger.handlers, logger.propagate, logger.level) == ([own], False, logging.CRITICAL), logger.name
    assert stream.getvalue() == ""
