"""Prepare the tests' Kafka, before a test's time limit runs: `python -m tests.support.kafka`."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tests.support.kafka.installation import archive_of_classes, find_jars
from tests.support.kafka.server import KafkaServer
from tests.support.maven import find_java


async def archive_classes() -> None:
    """Start a server and end it, so that it leaves its archive of classes."""
    archive = archive_of_classes()
    written = archive.with_suffix(".part")
    server = KafkaServer(archive=written)
    try:
        await server.start()
        await server.shut_down()
        written.rename(archive)
    finally:
        await server.stop()


if __name__ == "__main__" and "HEADRACE_TEST_KAFKA" not in os.environ:
    try:
        find_java()
        find_jars()
    except pytest.fail.Exception as missing:
        sys.exit(str(missing))
    if not archive_of_classes().exists():
        asyncio.run(archive_classes())
