"""Does the log continue at the claim? If it does not, nothing is guessed: the partition is refused, and says why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.engine.claim import Claim, Fingerprint
from headrace.errors import ConfigurationError, LogMismatchError
from headrace.log.ports import Bounds, Log, Record, TopicInfo
from headrace.topics import growth_advice


def check_partitions(group: str, partition: int, info: TopicInfo, known: int) -> None:
    """Refuse a partition that was added after the subscription began, and a topic that has lost some.

    Keys have moved to the new partitions: what an old owner has seen of them, a new one has not.
    Raises: LogMismatchError.
    """
    if partition >= known or info.partitions < known:
        raise LogMismatchError(
            f"{group}: topic {info.topic!r} has {info.partitions} partitions and had {known} when it was last "
            f"accepted, so keys have moved; {_advice(info, known)}."
        )


def _advice(info: TopicInfo, known: int) -> str:
    if info.partitions < known:
        return f"run `headrace topics --accept {info.topic}` to take the topic as it is now"
    return growth_advice(info.topic, known, info.partitions)


def check_log(claim: Claim, info: TopicInfo) -> None:
    """Refuse another cluster, another embedded log, or another topic of that name. Raises: LogMismatchError."""
    if claim.log_id != info.log_id:
        raise LogMismatchError(
            f"{claim.group}: topic {info.topic!r} was applied from {claim.log_id}, but HEADRACE_LOG names "
            f"{info.log_id}; set HEADRACE_LOG back, or run `headrace topics --accept {info.topic}` to start at the "
            "beginning of this log."
        )
    if is_another(claim.topic_id, info):
        raise LogMismatchError(
            f"{claim.group}: topic {info.topic!r} was created again (its id in Kafka is {info.topic_id}, and that of "
            f"the one that was applied is {claim.topic_id}); run `headrace topics --accept {info.topic}` to start at "
            "its beginning."
        )


async def refuse_other_log(log: Log, name: str, claims: Iterable[Any]) -> None:
    """Refuse to read again what a subscription has applied, if that is not what the log holds.

    `claims` are rows with the topic, its partition and the ids of its log and topic. Raises: ConfigurationError.
    """
    rows = list(claims)
    infos = await log.topics(sorted({row["topic"] for row in rows}))
    for row in rows:
        info = infos.get(row["topic"])
        if (
            info is None
            or row["log_id"] != info.log_id
            or row["partition"] >= info.partitions
            or is_another(row["topic_id"], info)
        ):
            raise ConfigurationError(
                f"{name!r}: HEADRACE_LOG does not hold the topic {row['topic']!r} that was applied; set it back, or "
                f"run `headrace topics --accept {row['topic']}` first."
            )


def is_another(topic_id: str | None, info: TopicInfo) -> bool:
    """True if a topic is known not to be the one with that id. Not every log gives topics ids."""
    return None not in (topic_id, info.topic_id) and topic_id != info.topic_id


def check_bounds(claim: Claim, bounds: Bounds) -> None:
    """Refuse a log that ends before, or begins after, the claim's next offset. Raises: LogMismatchError."""
    topic, partition = claim.partition
    if claim.next_offset < bounds.begin:
        raise LogMismatchError(
            f"{claim.group}: {topic}/{partition} begins at offset {bounds.begin}, but the claim's next offset is "
            f"{claim.next_offset}: {bounds.begin - claim.next_offset} records are gone (retention passed, or the topic "
            f"was created again); run `headrace topics --accept {topic}` to continue at the log's beginning."
        )
    if claim.next_offset > bounds.end:
        raise LogMismatchError(
            f"{claim.group}: {topic}/{partition} ends at offset {bounds.end}, but the claim's next offset is "
            f"{claim.next_offset}: the topic was created again, or its log lost its tail; "
            f"run `headrace topics --accept {topic}` to continue at the log's beginning."
        )


def check_fingerprint(claim: Claim, record: Record) -> None:
    """Refuse a log that holds another record than the one that was read last. Raises: LogMismatchError."""
    if claim.last is None or record.offset != claim.last.offset or claim.last.matches(record):
        return
    topic, partition = claim.partition
    known, found = claim.last, Fingerprint.of(record)
    raise LogMismatchError(
        f"{claim.group}: {topic}/{partition} holds another record at offset {known.offset} than the one that "
        f"was applied (time {found.timestamp} instead of {known.timestamp}): the topic was created again; "
        f"run `headrace topics --accept {topic}` to continue at the log's beginning."
    )


def resume_at(claim: Claim, bounds: Bounds) -> int:
    """Return where to read from: the record before ours if it is still there, to see that it is the one we knew."""
    return claim.last.offset if claim.last is not None and claim.last.offset >= bounds.begin else claim.next_offset
