"""The public names: whoever changes them sees it here, and writes it in the changelog."""

from __future__ import annotations

import headrace


def test_public_names_are_these() -> None:
    assert headrace.__all__ == [
        "Aggregate",
        "CallNext",
        "Caller",
        "DeadLetter",
        "Emit",
        "Envelope",
        "Event",
        "Handling",
        "Headrace",
        "HeadraceError",
        "HeadraceWarning",
        "InSequence",
        "Latest",
        "Outbox",
        "Published",
        "Publisher",
        "Record",
        "Retry",
        "Skip",
        "State",
        "States",
        "Step",
        "Subscription",
        "Table",
        "Tasks",
        "Transaction",
        "Window",
        "__version__",
        "applies",
        "event",
        "keep",
        "require",
        "upcast",
    ]


def test_every_public_name_exists() -> None:
    for name in headrace.__all__:
        assert getattr(headrace, name) is not None
