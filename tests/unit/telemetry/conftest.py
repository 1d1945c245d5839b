"""Fixtures of the tests of telemetry."""

from __future__ import annotations

import pytest

from tests.support.spans import Spans


@pytest.fixture(params=[True, False], ids=["own", "installed"])
def spans(request: pytest.FixtureRequest) -> Spans:
    """Spans of Headrace's own tracer provider, and of one that an application has installed."""
    return Spans(is_own=request.param)
