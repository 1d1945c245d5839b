"""Whose tracer provider is used: the application's own, ours to a collector, or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.trace import TracerProvider

from headrace.errors import ConfigurationError
from headrace.telemetry import attributes as key
from headrace.telemetry.recording import Recorder, RecordingProvider, TracerRecorder

MARKS = (key.ERROR_TYPE, key.PARKED)
"""A batch whose span has a value under one of these is always kept."""


class Provider(NamedTuple):
    """A tracer provider, and whether it is ours to shut down."""

    tracers: TracerProvider
    is_owned: bool

    def recorder(self, name: str, version: str) -> Recorder:
        """Return what makes spans of finished work in the name of a library."""
        if isinstance(self.tracers, RecordingProvider):
            return self.tracers.recorder(name, version)
        return TracerRecorder(self.tracers.get_tracer(name, version))


def find_provider(service: str, version: str, dropped: Callable[[str, int], None]) -> Provider | None:
    """Return the provider that the application installed, else one made from the `OTEL_...` variables, else None.

    Raises: ConfigurationError (a variable makes no sense).
    """
    if _variable("OTEL_SDK_DISABLED") == "true":
        return None
    installed = trace.get_tracer_provider()
    if not isinstance(installed, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return Provider(installed, is_owned=False)
    has_endpoint = _variable("OTEL_EXPORTER_OTLP_ENDPOINT") or _variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not has_endpoint or _variable("OTEL_TRACES_EXPORTER") == "none":
        return None
    protocol = _variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or _variable("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not spoken; "
            "use http/protobuf and the collector's HTTP port (4318)."
        )
    from headrace.telemetry.exporting import otlp_provider  # the SDK and its exporter take a while to import
    from headrace.telemetry.sampling import event_sampler

    try:
        return Provider(otlp_provider(service, version, event_sampler(MARKS), dropped), is_owned=True)
    except ValueError as error:
        raise ConfigurationError(f"tracing cannot start: {error} Look at the OTEL_... variables.") from error


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip().lower()
