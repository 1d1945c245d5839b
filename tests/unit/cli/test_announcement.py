"""What `headrace run` says once it serves."""

from __future__ import annotations

import pytest

from headrace.cli.announcement import say
from headrace.settings import Settings


def test_ipv6_addresses_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Rich would take `[fd00::1]` for a style."""
    settings = Settings(log="kafka://[fd00::2]:9092", log_format="console")
    say("shop", settings, "http://[fd00::1]:8000", {"docs": "http://[fd00::1]:8000/docs"})
    assert capsys.readouterr().err == (
        "shop serves on http://[fd00::1]:8000 (log: kafka://[fd00::2]:9092)\n  docs     http://[fd00::1]:8000/docs\n"
    )
