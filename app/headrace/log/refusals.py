"""What every log refuses in the same words: illegal topic names, missing topics, positions it does not hold."""

from __future__ import annotations

import re

from headrace.errors import ConfigurationError, LogMismatchError
from headrace.log.ports import Bounds, TopicPartition

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # Kafka's rule, so that a team can move from one log to another


def check_topic_name(topic: str, partitions: int) -> None:
    """Raises: ConfigurationError if Kafka would refuse the topic."""
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise ConfigurationError(f"{topic!r} is no topic name: use up to 249 of a-z, A-Z, 0-9, '.', '_' and '-'.")
    if partitions < 1:
        raise ConfigurationError(
            f"the topic {topic!r} cannot have {partitions} partitions: HEADRACE_PARTITIONS is 1 or more."
        )


def no_such_topic(topic: str) -> LogMismatchError:
    """Return the error for a topic that the log does not have."""
    return LogMismatchError(f"the topic {topic!r} does not exist in the log: create it with `headrace topics`.")


def created_again(topic: str) -> LogMismatchError:
    """Return the error for a topic that is not the one that was being read, though it has its name."""
    return LogMismatchError(
        f"the topic {topic!r} was created again while it was read, so its records are others than those before; "
        f"run `headrace topics --accept {topic}` to continue at the log's beginning."
    )


def no_such_partition(partition: TopicPartition) -> LogMismatchError:
    """Return the error for a partition number that the topic does not have."""
    return LogMismatchError(
        f"the topic {partition.topic!r} has no partition {partition.partition}: was it created again with fewer?"
    )


def out_of_range(partition: TopicPartition, offset: int, bounds: Bounds) -> LogMismatchError | None:
    """Return the error for a position that the log does not hold, or None if it does."""
    if bounds.begin <= offset <= bounds.end:
        return None
    if offset < bounds.begin:
        cause = "retention deleted what was not yet read"
    else:
        cause = "the topic was created again or truncated"
    return LogMismatchError(
        f"{partition.topic}[{partition.partition}] begins at offset {bounds.begin} and ends before {bounds.end}, "
        f"so reading cannot continue at {offset}: {cause}; "
        f"run `headrace topics --accept {partition.topic}` to continue at the log's beginning."
    )
