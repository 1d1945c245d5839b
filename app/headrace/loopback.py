"""Names and addresses by which a machine means itself."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

LONGEST_NAME = 253
"""Characters of a name in DNS (RFC 1035); longer texts are not remembered."""


def host_name(url: str) -> str:
    """Return the host of an address, without its port; "" if it cannot be read."""
    return _host_name(url) if len(url) <= LONGEST_NAME else _host_name.__wrapped__(url)


@lru_cache(maxsize=1_024)
def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """True for this machine's own names and addresses: localhost, *.localhost, 127.0.0.0/8, ::1."""
    return len(host) <= LONGEST_NAME and _is_loopback(host)


@lru_cache(maxsize=1_024)
def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761: such names never leave the machine
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
