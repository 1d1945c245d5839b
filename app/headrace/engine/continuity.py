"""Does the log continue where the claim stands? Where it does not, nothing is guessed: the partition is refused."""

from __future__ import annotations

from headrace.engine.claim import Claim, Fingerprint
from headrace.errors import LogMismatchError
from headrace.log.ports import Bounds, Record


def check_bounds(held: Claim, bounds: Bounds) -> None:
    """Refuse a log that ends before, or begins after, the claim's next offset. Raises: LogMismatchError."""
    topic, partition = held.source
    if held.next_offset < bounds.begin:
        raise LogMismatchError(
            f"{held.group}: {topic}/{partition} begins at offset {bounds.begin}, but the claim's next offset is "
            f"{held.next_offset}: {bounds.begin - held.next_offset} records are gone (retention passed, or the topic "
            f"was created again); run `headrace topics --accept {topic}` to go on at the log's beginning."
        )
    if held.next_offset > bounds.end:
        raise LogMismatchError(
            f"{held.group}: {topic}/{partition} ends at offset {bounds.end}, but the claim's next offset is "
            f"{held.next_offset}: the topic was created again, or its log lost its tail; "
            f"run `headrace topics --accept {topic}` to go on at the log's beginning."
        )


def check_fingerprint(held: Claim, record: Record) -> None:
    """Refuse a log that holds another record where the last one was read. Raises: LogMismatchError."""
    if held.last is None or record.offset != held.last.offset or held.last.matches(record):
        return
    topic, partition = held.source
    known, found = held.last, Fingerprint.of(record)
    raise LogMismatchError(
        f"{held.group}: {topic}/{partition} holds another record at offset {known.offset} than the one that "
        f"was applied (time {found.timestamp} instead of {known.timestamp}): the topic was created again; "
        f"run `headrace topics --accept {topic}` to go on at the log's beginning."
    )


def resume_at(held: Claim, bounds: Bounds) -> int:
    """Start at the record before ours where it is still there, to see that it is the one we knew."""
    return held.last.offset if held.last is not None and held.last.offset >= bounds.begin else held.next_offset
