"""Fixtures of the tests of telemetry."""

from __future__ import annotations

import pytest

from tests.support.spans import Spans


@pytest.fixture
def spans() -> Spans:
    """A tracing that keeps every span."""
    return Spans()


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any variable of OpenTelemetry."""
    for name in ("SDK_DISABLED", "TRACES_EXPORTER", "TRACES_SAMPLER", "TRACES_SAMPLER_ARG"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    return monkeypatch
