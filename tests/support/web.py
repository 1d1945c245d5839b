"""A client of the servers that tests start."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(**options: Any) -> httpx.AsyncClient:
    """Return a client for plain HTTP. It reads no file of certificates, which takes 30 ms of processor time each."""
    return httpx.AsyncClient(verify=_NO_CERTIFICATES, **options)
