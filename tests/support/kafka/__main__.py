"""Fetch what the tests' Kafka needs, before a test's time limit runs: `python -m tests.support.kafka`."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.kafka.installation import find_jars, find_java

if __name__ == "__main__" and "HEADRACE_TEST_KAFKA" not in os.environ:
    try:
        find_java()
        find_jars()
    except pytest.fail.Exception as missing:
        sys.exit(str(missing))
