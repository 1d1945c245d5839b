"""Decides from where a request may come if there are no API keys: from this machine, for this machine."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from headrace.errors import ConfigurationError
from headrace.http.problems import Problem
from headrace.loopback import host_name, is_loopback
from headrace.settings import Settings

OPEN_UP = "set HEADRACE_API_KEYS_FILE, or HEADRACE_INGEST_ALLOW_UNAUTHENTICATED=true"
FORWARDED = ("x-forwarded-for", "x-forwarded-host")
"""What proxies say of a request: whose it is, and to which name it was sent."""
TEST_CLIENT = "testclient"
"""The client address that Starlette's TestClient gives to its requests."""


def refuse_exposure(settings: Settings, host: str, *, is_authenticated: bool = False) -> None:
    """Raise ConfigurationError if serving on the address would let anybody in: not loopback, no keys, not allowed."""
    is_guarded = is_authenticated or settings.api_keys_file is not None
    if is_guarded or settings.ingest.allow_unauthenticated or is_loopback(host):
        return
    raise ConfigurationError(
        f"serving on {host} without API keys would let anybody publish and operate; name a file of keys in "
        "HEADRACE_API_KEYS_FILE, serve on 127.0.0.1, or set HEADRACE_INGEST_ALLOW_UNAUTHENTICATED=true."
    )


def check_caller(connection: HTTPConnection) -> None:
    """Raise Problem 403 unless the request comes from this machine and was meant for it.

    Four checks: the client's address; `Origin`, which a browser sends for a page of another site; `Host`, which holds
    the attacker's name if DNS was made to point that name at this machine (DNS rebinding); and what a proxy on this
    machine says about the request, which may have come from anywhere, to any name, though the proxy asks for localhost.
    """
    client = connection.client.host if connection.client is not None else ""
    if client and not is_loopback(client) and not _is_test_client(connection):
        raise forbidden(
            f"without API keys only this machine is served, and the request comes from {client[:200]}; {OPEN_UP}."
        )
    host = connection.headers.get("host", "")
    if host and not _is_this_machine(connection, host_name(f"//{host}")):
        raise forbidden(
            f"without API keys only requests to this machine's own name are served, and this one is to {host[:200]}; "
            f"ask http://localhost or http://127.0.0.1 instead, or {OPEN_UP}."
        )
    origin = connection.headers.get("origin")
    if origin is not None and not is_loopback(host_name(origin)):
        raise forbidden(f"without API keys pages of other sites are refused, and this one is of {origin[:200]}.")
    for name in FORWARDED:
        value = connection.headers.get(name)
        if value is not None and not all(map(_is_of_this_machine, value.split(","))):
            raise forbidden(
                f"without API keys only this machine is served, and a proxy says {name}: {value[:200]}; {OPEN_UP}."
            )


def forbidden(detail: str) -> Problem:
    """Return the answer for what the caller may not do."""
    return Problem(403, "forbidden", "Forbidden", detail)


def _is_of_this_machine(forwarded: str) -> bool:
    """True for a loopback address or name, with or without a port."""
    place = forwarded.strip()
    return is_loopback(place) or is_loopback(host_name(f"//{place}"))


def _is_this_machine(connection: HTTPConnection, host: str) -> bool:
    """True if the name is a loopback one, or the place that the server says the request came to.

    Over a socket that place is an IP address. A client inside the process (TestClient, httpx.ASGITransport) names it
    as it likes, and no web page can send a request that way.
    """
    server = connection.scope.get("server")
    return is_loopback(host) or (server is not None and host == server[0])


def _is_test_client(connection: HTTPConnection) -> bool:
    """True for Starlette's TestClient: it calls the application inside the process.

    The extension below is offered by no server, so that a forwarded address which says "testclient" does not count.
    """
    client = connection.client
    is_named_so = client is not None and client.host == TEST_CLIENT
    return is_named_so and "http.response.debug" in connection.scope.get("extensions", {})
