"""How events are applied."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from headrace.settings.component import component


class EngineSettings(BaseSettings):
    """`HEADRACE_ENGINE_...`: batches, retries and memory of the consumers."""

    model_config = component("HEADRACE_ENGINE_")

    batch_records: int = Field(
        10_000, ge=1, le=100_000, description="The most records of one partition that one transaction applies."
    )
    batch_bytes: int = Field(
        16_777_216,
        ge=65_536,
        le=1_073_741_824,
        description="The most bytes of records in one transaction and in one fetch; a single larger record is still "
        "taken. Lower it if workers need too much memory.",
    )
    batch_seconds: float = Field(
        30.0,
        gt=0,
        le=86_400,
        description="When a partition moves to another process, its worker has this many seconds to finish the "
        "transaction that is running; then the transaction is rolled back, and the next owner repeats it.",
    )
    handler_seconds: float = Field(
        30.0,
        gt=0,
        le=86_400,
        description="The time limit of one handler call, in seconds; then the event has failed. An async handler is "
        "cancelled, the thread of a synchronous one is abandoned. Raise it, with HEADRACE_ENGINE_BATCH_SECONDS and "
        "HEADRACE_ENGINE_STUCK_SECONDS, if handlers rightly take longer. If it is unset, it is "
        "never longer than those two.",
    )
    handler_threads: int = Field(
        8,
        ge=1,
        le=256,
        description="Threads for synchronous handlers, per subscription. Raise it if handlers wait for I/O and a "
        "process owns more partitions of the subscription than this.",
    )
    stuck_seconds: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="A worker that has something to do and has done nothing for this many seconds is abandoned, and a "
        "new one takes over. A handler that runs is judged by HEADRACE_ENGINE_HANDLER_SECONDS instead.",
    )
    dedupe_window_ids: int = Field(
        200_000,
        ge=0,
        le=1_000_000_000,
        description="Event ids that are remembered per partition, at about 200 bytes each. More than the default are "
        "packed: 40 to 50 bytes each, and up to a microsecond more for each event. Raise it if duplicates come later "
        "than this many events after the first.",
    )
    state_cache_keys: int = Field(
        50_000,
        ge=0,
        le=1_000_000_000,
        description="States that are kept in memory per partition; others are read from Postgres when they are needed.",
    )
    retry_attempts: int = Field(
        12, ge=1, le=1_000_000, description="How many times a failing event is tried before it becomes a dead letter."
    )
    retry_first_seconds: float = Field(
        0.5,
        gt=0,
        le=31_536_000,
        description="Seconds before the first retry. The wait doubles with each failure.",
    )
    retry_max_seconds: float = Field(
        300.0, gt=0, le=31_536_000, description="The longest wait between two retries, in seconds."
    )
    retry_jitter: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The part of a wait that chance takes off, from 0 to 1, so that keys which failed at one moment do "
        "not come back at one moment.",
    )
    retry_at_end: Literal["dead_letter", "hold"] = Field(
        "dead_letter",
        description="What happens after the last attempt: `dead_letter`, and the key continues; or `hold`: the key "
        "waits until an operator retries it.",
    )
    outage_keys: int = Field(
        20,
        ge=0,
        le=1_000_000,
        description="So many different keys of a handler have to fail within 30 s, and 70 % of its keys, before its "
        "partitions wait for the end of an outage. With 0 only exceptions that its policy names as one make them wait.",
    )
    effects_pending: int = Field(
        10_000,
        ge=1,
        le=1_000_000_000,
        description="A partition takes no further events while so many calls of effects wait or are under way; all of "
        "them are in memory.",
    )
    parked_keys: int = Field(
        200_000,
        ge=1,
        le=1_000_000_000,
        description="A partition takes no further events while so many keys of it are parked; each is in memory, with "
        "about 500 bytes.",
    )
    parked_events: int = Field(
        1_000_000,
        ge=1,
        le=1_000_000_000,
        description="A partition takes no further events while so many events of it are parked; they are in Postgres.",
    )
    emits_pending: int = Field(
        20_000,
        ge=1,
        le=1_000_000_000,
        description="A partition waits when this many emitted events of it are not yet acknowledged by the log.",
    )
    drain_seconds: float = Field(
        30.0,
        gt=0,
        le=86_400,
        description="Seconds that a stop gives to running batches and requests. The other steps of a stop add at most "
        "30 s; let the grace period of a pod be longer than both.",
    )
    ledger_days: int = Field(
        14,
        ge=1,
        le=36_500,
        description="Days that the ledger is kept. Rows stay longer if emitted events or a dedupe window need them.",
    )
    audit_seconds: float = Field(
        3600.0,
        ge=1,
        le=86_400,
        description="Seconds between two audits of a subscription: one process at a time compares claims, ledger, "
        "lanes, dead letters and states. Lower it to hear of a broken promise sooner.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "handler_seconds" not in self.model_fields_set:
            longest = min(self.batch_seconds, self.stuck_seconds)
            object.__setattr__(self, "handler_seconds", min(self.handler_seconds, longest))
        for smaller, larger in (
            ("retry_first_seconds", "retry_max_seconds"),
            ("handler_seconds", "batch_seconds"),
            ("handler_seconds", "stuck_seconds"),
        ):
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(f"HEADRACE_ENGINE_{smaller.upper()} must be at most HEADRACE_ENGINE_{larger.upper()}")
        return self
