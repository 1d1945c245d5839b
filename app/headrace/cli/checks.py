"""The checks of `headrace doctor` that need no server: settings, Python, the application, keys, ports."""

from __future__ import annotations

import importlib.util
import json
import os
import platform as machine
import socket
from typing import Literal, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

from headrace.cli.output import count_of
from headrace.errors import ConfigurationError
from headrace.http.api_keys import KeyFile
from headrace.loading import find_platform, load_app
from headrace.native import speedups
from headrace.platform import Headrace
from headrace.settings import PREFIX, Settings
from headrace.version import VERSION

PROBE_SECONDS = 3.0


class Check(NamedTuple):
    """One line of the doctor: what was found, and what to do about it."""

    state: Literal["ok", "warn", "FAIL", "skip"]
    name: str
    found: str
    advice: str = ""


def check_python() -> Check:
    """Tell which Python runs, and whether the fast event loop and the extension are there."""
    loop = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio (uvloop is not installed)"
    extension = "with its extension in C" if speedups else "in Python alone (pip found no compiler for its extension)"
    return Check("ok", "python", f"{machine.python_version()}, {loop}, headrace {VERSION} {extension}")


def check_settings(settings: Settings) -> Check:
    """Tell what is set. Settings that are wrong never come here."""
    names = sorted(name for name in os.environ if name.startswith(PREFIX))
    log = settings.log if not settings.is_kafka else f"kafka at {', '.join(settings.kafka_brokers)}"
    return Check("ok", "settings", f"log {log}, role {settings.role}; set are: {', '.join(names) or 'none'}")


def check_application(target: str) -> tuple[Check, Headrace | None]:
    """Import the application and complete its declarations."""
    try:
        platform = find_platform(load_app(target))
        platform.registry.complete()
    except ConfigurationError as error:
        return Check("FAIL", "application", str(error)), None
    except Exception as error:
        found = f"{target} cannot be imported: {type(error).__name__}: {error}"
        return Check("FAIL", "application", found, f'python -c "import {target.partition(":")[0]}" shows where'), None
    registry = platform.registry
    names = ", ".join(registry.subscriptions) or "none"
    found = f"{registry.service}: subscriptions {names}; {count_of(len(registry.types), 'type')}"
    return Check("ok", "application", found), platform


def check_access(settings: Settings) -> Check:
    """Tell who may come in over HTTP."""
    if settings.api_keys_file is not None:
        try:
            KeyFile(settings.api_keys_file)
        except ConfigurationError as error:
            return Check("FAIL", "access", str(error))
        return Check("ok", "access", f"who has a key of {settings.api_keys_file}")
    if settings.ingest.allow_unauthenticated:
        advice = "name a file of keys in HEADRACE_API_KEYS_FILE"
        return Check("warn", "access", "anybody who reaches the port may publish and operate", advice)
    return Check("ok", "access", "this machine only; HEADRACE_API_KEYS_FILE admits others")


def check_management_port(settings: Settings) -> Check:
    """Tell whether the port is free, or held by a platform that runs already."""
    host, port = settings.management_host, settings.management_port
    place = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        ready = _ask_readiness("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)  # noqa: S104 - compared only
        if ready is None and settings.may_move_management_port:
            advice = "a free port is announced at the start; set HEADRACE_MANAGEMENT_PORT to choose one"
            return Check("warn", "management port", f"{place} cannot be taken ({error.strerror})", advice)
        if ready is None:
            advice = "set HEADRACE_MANAGEMENT_PORT or HEADRACE_MANAGEMENT_HOST, or stop what holds it"
            return Check("FAIL", "management port", f"{place} cannot be taken ({error.strerror})", advice)
        if ready:
            return Check("warn", "management port", f"a platform answers on {place} and is not ready", ready)
        return Check("ok", "management port", f"a platform answers on {place} and is ready")
    return Check("ok", "management port", f"{place} is free")


def _ask_readiness(host: str, port: int) -> str | None:
    """Return why the platform there is not ready, "" if it is, None if none answers."""
    shown = f"[{host}]" if ":" in host else host
    try:
        try:
            with urlopen(f"http://{shown}:{port}/health/ready", timeout=PROBE_SECONDS) as answer:
                body = json.loads(answer.read())
        except HTTPError as error:
            body = json.loads(error.read())
        details = body.get("details", {})
        return "; ".join(f"{reason} {details.get(reason, '')}".strip() for reason in body["reasons"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
