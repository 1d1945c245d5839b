"""Makes events of a request's body, whichever mode it came in."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from starlette.datastructures import Headers

from headrace.cloudevents import Mode, ParsedEvent, check_json
from headrace.cloudevents import parse_request as parse_cloudevents
from headrace.cloudevents.limits import check_lengths
from headrace.envelope import Envelope
from headrace.errors import DecodeError
from headrace.http.problems import Problem, too_large
from headrace.publishing.checking import JSON, source_of
from headrace.settings import IngestSettings


class PlainEvent(NamedTuple):
    """The event that `POST /events/{type}` brings the data of."""

    service: str
    type: str


def check_encoding(headers: Headers) -> None:
    """Raise Problem 415 for a compressed body."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            415, "media-type", "Unsupported media type", "compressed bodies are not read; send the body plain."
        )


def parse_request(
    mode: Mode, headers: Headers, body: bytes, *, plain: PlainEvent | None, limits: IngestSettings
) -> list[ParsedEvent | DecodeError]:
    """Return what each event of the request is, in order: parsed, or the error that says what is wrong with it.

    `plain` names the event of mode `plain`.
    Raises: Problem 400 (the request as a whole is not what its content type says, or an empty batch), 413 (batch).
    """
    try:
        if plain is not None:
            return [_plain_event(plain, headers, body)]
        parsed = parse_cloudevents(headers.get("content-type"), headers.raw, body)
    except DecodeError as error:
        raise _malformed(str(error)) from error
    if not parsed:
        raise _malformed("the batch is empty; send at least one event.")
    if len(parsed) > limits.max_batch_events:
        raise too_large(
            f"the batch has {len(parsed)} events; at most {limits.max_batch_events} are taken "
            "(HEADRACE_INGEST_MAX_BATCH_EVENTS)."
        )
    return parsed


def _plain_event(plain: PlainEvent, headers: Headers, body: bytes) -> ParsedEvent:
    check_json(body)
    envelope = Envelope(
        id=_event_id(headers), source=source_of(plain.service, plain.type), type=plain.type, datacontenttype=JSON
    )
    check_lengths(envelope)
    return ParsedEvent(envelope, body)


def _event_id(headers: Headers) -> str:
    """Return the Idempotency-Key, quoted as a structured field or plain, else a new id. Raises: DecodeError."""
    given = headers.get("idempotency-key")
    if given is None:
        return str(uuid.uuid4())
    try:
        event_id = given.encode("latin-1").decode().strip()
    except UnicodeDecodeError:
        raise DecodeError("the header Idempotency-Key is not UTF-8.") from None
    if len(event_id) >= 2 and event_id[0] == event_id[-1] == '"':
        event_id = event_id[1:-1]
    if not event_id:
        raise DecodeError("the header Idempotency-Key is empty; leave it out, or name the event.")
    return event_id


def _malformed(detail: str) -> Problem:
    return Problem(400, "malformed", "Not a CloudEvent", detail)
