"""What counts as this machine, and which addresses may be served without keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.http.access import refuse_exposure
from headrace.loopback import host_name, is_loopback
from headrace.settings import IngestSettings, Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_loopback_may_be_served_without_keys(host: str) -> None:
    assert is_loopback(host)
    refuse_exposure(Settings(), host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.7", "example.com", "::ffff:10.0.0.7"])  # noqa: S104
def test_other_addresses_need_keys_or_an_explicit_setting(host: str, tmp_path: Path) -> None:
    """The setting's name says what is risked."""
    with pytest.raises(ConfigurationError, match="HEADRACE_API_KEYS_FILE"):
        refuse_exposure(Settings(), host)
    refuse_exposure(Settings(api_keys_file=tmp_path / "keys"), host)
    refuse_exposure(Settings(ingest=IngestSettings(allow_unauthenticated=True)), host)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("//localhost:8000", "localhost"),
        ("//[::1]:8000", "::1"),
        ("https://Shop.Example/path", "shop.example"),
        ("//[::1", ""),
        ("null", ""),
    ],
)
def test_a_host_is_read_without_its_port(url: str, host: str) -> None:
    assert host_name(url) == host


@pytest.mark.parametrize("host", ["a" * 64_000, "localhost." * 9_000, "127.0.0.1.evil.example", "localhost.evil"])
def test_names_that_only_look_like_this_machine_are_not_it(host: str) -> None:
    assert not is_loopback(host)
