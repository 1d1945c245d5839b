from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from headrace.errors import ConfigurationError, HandlerError
from headrace.telemetry.redaction import Redaction

QUOTED = "-".join(["ann", "owes", "77"])
"""Data that an exception quotes; not spelled out, since a traceback shows lines of source."""


class Wallet(BaseModel):
    balance: int


def written(fields: dict[str, Any], *, shows_messages: bool = False) -> dict[str, Any]:
    return dict(Redaction(shows_messages=shows_messages)(None, "info", {"event": "x", **fields}))


def caught(error: Exception) -> Exception:
    try:
        raise error
    except Exception as raised:
        return raised


def test_plain_values_stay_what_they_are() -> None:
    fields = {"offset": 7, "ratio": 0.5, "paused": True, "owner": None, "topic": "wallets", "reasons": ["a", "b"]}
    assert written(fields) == {"event": "x", **fields}


def test_objects_are_named_and_never_printed() -> None:
    wallet = Wallet(balance=77)
    fields = written({"wallet": wallet, "raw": b"ann:77", "pin": SecretStr("hush"), "nested": {"wallet": wallet}})
    assert fields["wallet"] == "<Wallet>"
    assert fields["raw"] == "<bytes>"
    assert "77" not in str(fields)
    assert "hush" not in str(fields)


def test_ids_and_instants_are_written_as_text() -> None:
    number = uuid.UUID(int=1)
    fields = written({"id": number, "at": datetime(2026, 1, 2, tzinfo=UTC)})
    assert fields["id"] == str(number)
    assert fields["at"] == "2026-01-02 00:00:00+00:00"


@pytest.mark.parametrize("name", ["data", "payload", "headers", "password", "api_key", "token", "authorization"])
def test_fields_that_hold_data_or_secrets_are_hidden(name: str) -> None:
    assert written({name: "hush"})[name] == "(hidden)"
    assert written({"request": {name: "hush"}})["request"] == {name: "(hidden)"}


def test_the_password_in_an_address_is_hidden() -> None:
    """In fields and in the message."""
    address = "postgresql://ann:hush@db:5432/shop"
    fields = written({"event": f"cannot reach {address}", "address": address})
    assert "hush" not in str(fields)
    assert fields["address"] == "postgresql://ann:(hidden)@db:5432/shop"


def test_a_users_mistake_is_one_sentence_without_a_traceback() -> None:
    error = caught(ConfigurationError("HEADRACE_LOG=kafak:// is no log; write kafka://host:port."))
    fields = written({"exc_info": (type(error), error, error.__traceback__)})
    assert fields["error"] == "HEADRACE_LOG=kafak:// is no log; write kafka://host:port."
    assert fields["error_type"] == "ConfigurationError"
    assert "exception" not in fields


def test_a_foreign_exception_shows_its_place_and_not_its_data() -> None:
    """It shows where it was raised, but not the data that its text quotes."""
    with pytest.raises(ValidationError) as raised:
        Wallet.model_validate({"balance": QUOTED})
    text = written({"exc_info": (raised.type, raised.value, raised.tb)})["exception"]
    assert "test_redaction.py" in text
    assert "ValidationError" in text
    assert QUOTED not in text


def test_the_cause_of_a_handlers_failure_has_its_frames() -> None:
    def credit() -> None:
        raise KeyError(QUOTED)

    try:
        try:
            credit()
        except KeyError as error:
            raise HandlerError("credit raised KeyError", "credit") from error
    except HandlerError as error:
        text = written({"exc_info": (type(error), error, error.__traceback__)})["exception"]
    assert "in credit" in text
    assert "builtins.KeyError\nwhich led to:" in text
    assert QUOTED not in text


def test_every_exception_of_a_group_is_named() -> None:
    error = caught(ExceptionGroup("several", [caught(ValueError(QUOTED)), caught(KeyError(QUOTED))]))
    text = written({"exc_info": (type(error), error, error.__traceback__)})["exception"]
    assert "builtins.ValueError" in text and "builtins.KeyError" in text
    assert QUOTED not in text


def test_a_terminal_shows_messages() -> None:
    """The developer needs them."""
    error = caught(ValueError("the amount must be positive"))
    text = written({"exc_info": (type(error), error, error.__traceback__)}, shows_messages=True)["exception"]
    assert "the amount must be positive" in text


def test_asyncios_report_of_a_lost_task_quotes_no_exception() -> None:
    event = "Task exception was never retrieved\nfuture: <Task exception=ValueError('ann')>"
    assert written({"event": event, "logger": "asyncio"})["event"] == "Task exception was never retrieved"
