from __future__ import annotations

import pytest

from headrace.telemetry.trace_context import exemplar, is_sampled, parse, render

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"


def test_a_context_survives_reading_and_writing() -> None:
    context = parse(SAMPLED, "vendor=1,other=2")
    assert context is not None
    assert context.is_remote
    assert render(context) == (SAMPLED, "vendor=1,other=2")


def test_an_absent_tracestate_stays_absent() -> None:
    context = parse(SAMPLED)
    assert context is not None
    assert render(context).tracestate is None


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "nonsense",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-0",
        SAMPLED + "\n",
        "\u0660\u0660" + SAMPLED[2:],
    ],
)
def test_what_is_no_traceparent_names_no_span(traceparent: str | None) -> None:
    assert parse(traceparent) is None
    assert exemplar(traceparent) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    context = parse(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings")
    assert context is not None
    assert context.trace_id == int(TRACE, 16)


@pytest.mark.parametrize(
    ("flags", "expected"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
def test_sampled_is_one_bit_of_the_flags(flags: str, expected: bool) -> None:
    """The SDK sets bit 1 (random trace id) as well, so that a comparison with `01` would miss its own traces."""
    assert is_sampled(f"00-{TRACE}-{SPAN}-{flags}") is expected


def test_no_context_is_not_sampled() -> None:
    assert not is_sampled(None)
    assert not is_sampled("01")


def test_only_a_sampled_event_gives_an_exemplar() -> None:
    assert exemplar(SAMPLED) == {"trace_id": TRACE}
    assert exemplar(f"00-{TRACE}-{SPAN}-00") is None
