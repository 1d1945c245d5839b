"""Fixtures of the tests of the engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.obstacles import Gate


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that is open when the test is over, so that no thread stays in it."""
    made = Gate()
    yield made
    made.open()
