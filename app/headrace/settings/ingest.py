"""What is accepted over HTTP."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

from headrace.settings.component import component


class IngestSettings(BaseSettings):
    """`HEADRACE_INGEST_...`: what is accepted over HTTP."""

    model_config = component("HEADRACE_INGEST_")

    max_body_bytes: int = Field(
        1_048_576,
        ge=1_024,
        le=1_073_741_824,
        description="A request whose body is larger than this many bytes is answered 413.",
    )
    max_batch_events: int = Field(
        10_000, ge=1, le=1_000_000, description="A batch of more events than this is answered 413."
    )
    max_in_flight: int = Field(
        1_000,
        ge=1,
        le=1_000_000,
        description="The most requests at once whose bodies are being read or whose events wait for the log; further "
        "ones are answered 429.",
    )
    max_in_flight_bytes: int = Field(
        33_554_432,
        ge=1_024,
        le=1_073_741_824,
        description="The most bytes that the bodies of such requests have together; what would exceed them is answered "
        "429, unless nothing else is in flight. Until the log has an event, it takes several times its size in memory.",
    )
    max_wait_seconds: float = Field(
        0.2,
        gt=0,
        le=3_600,
        description="`headrace run` answers an event 429 at once if its request could not be begun within this many "
        "seconds, or while answers take longer than that because the process itself is busy.",
    )
    timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=3_600,
        description="A publish that the log has not acknowledged after this many seconds is answered 503.",
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Whether other addresses than loopback are served without API keys. If so, ANYBODY WHO REACHES THE "
        "PORT MAY PUBLISH AND OPERATE.",
    )
    max_streams: int = Field(
        50,
        ge=1,
        le=1_000_000,
        description="The most open `GET /events/stream` connections; further ones are answered 429.",
    )
    max_header_bytes: int = Field(
        65_536,
        ge=16_384,
        le=16_777_216,
        description="A request whose line and headers have more bytes than this is answered 431 by `headrace run`.",
    )
    header_seconds: float = Field(
        10.0,
        gt=0,
        le=3_600,
        description="`headrace run` ends a connection whose request line and headers take longer than this.",
    )
    body_seconds: float = Field(
        30.0,
        gt=0,
        le=86_400,
        description="An event's body that takes longer than this is answered 408; `headrace run` ends any connection "
        "whose body brings less than 16 KiB in this time.",
    )
    max_connections: int = Field(
        2_000,
        ge=1,
        le=1_000_000,
        description="The most open connections of `headrace run`; further ones are answered 503.",
    )
