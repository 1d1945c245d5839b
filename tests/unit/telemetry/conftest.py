"""Fixtures of the tests of telemetry."""

from __future__ import annotations

import pytest

from tests.support.spans import Spans


@pytest.fixture
def spans() -> Spans:
    return Spans()
