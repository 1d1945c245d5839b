"""Fixtures of the tests of the engine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.support.obstacles import Gate


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that is open when the test is over, so that no thread stays in it."""
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def service_name() -> str:
    """A name that is this test's own: tests that share a broker do not meet in a consumer group."""
    return f"notebook-{secrets.token_hex(4)}"
