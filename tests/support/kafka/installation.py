"""What a Kafka server needs: its jars (fetched once with Maven) and an archive of classes."""

from __future__ import annotations

from pathlib import Path

from tests.support.maven import fetched

_POM = Path(__file__).with_name("pom.xml")


def find_jars() -> Path:
    """Return the folder of the jars that pom.xml names; the first call on a machine fetches them."""
    otherwise = " (or name a running Kafka: HEADRACE_TEST_KAFKA=host:port)"
    return fetched("kafka", _POM, "copy-dependencies", otherwise=otherwise)


def archive_of_classes() -> Path:
    """Return where the classes of a running server are kept, with which another one starts in half the time.

    `python -m tests.support.kafka` makes it; Java ignores one of another Java or of other jars.
    """
    jars = find_jars()
    return jars.with_name(f"{jars.name}.jsa")
