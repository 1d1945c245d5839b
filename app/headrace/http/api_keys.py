"""Knows the API keys of HEADRACE_API_KEYS_FILE."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from headrace.errors import ConfigurationError
from headrace.http.caller import Caller, check_scope
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.security")

Permission = Literal["publish", "read", "operate"]
Signature = tuple[int, int, int]
"""Modification time, inode and size: a Secret that Kubernetes swaps by symlink changes its inode."""


class ApiKey(msgspec.Struct, frozen=True):
    """Says of one key who it stands for and what it may do. The key itself is not kept."""

    digest: bytes
    caller: Caller


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    scopes: list[str]
    name: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    key: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")] | None = None
    events_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None


class KeyFile:
    """The keys of one file, read again whenever the file changes."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises: ConfigurationError (unreadable, wrong content)."""
        self._path = path
        self._keys, self._signature = _read(path)

    def find(self, key: str) -> ApiKey | None:
        """Return the key's entry. Every entry is compared, each in constant time, so that time tells nothing."""
        self._refresh()
        digest = hashlib.sha256(key.encode()).digest()
        found = None
        for entry in self._keys:
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        return found

    def _refresh(self) -> None:
        try:
            signature = _signature(os.stat(self._path))
        except OSError:
            signature = (0, 0, 0)
        if signature == self._signature:
            return
        self._signature = signature  # even if it is broken: one line in the log per change, not per request
        try:
            self._keys, self._signature = _read(self._path)
        except ConfigurationError as error:
            logger.error("api keys not changed", error=str(error))
        else:
            logger.info("api keys read again", keys=[key.caller.name for key in self._keys])


def _read(path: Path) -> tuple[tuple[ApiKey, ...], Signature]:
    setting = f"HEADRACE_API_KEYS_FILE={path}"
    try:
        with path.open("rb") as file:
            signature = _signature(os.fstat(file.fileno()))
            entries = msgspec.json.decode(file.read(), type=list[_Entry])
    except OSError as error:
        raise ConfigurationError(f"{setting} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(
            f'{setting} is wrong: {error}; write [{{"name": "ci", "key": "...", "scopes": ["publish"]}}].'
        ) from None
    if not entries:
        raise ConfigurationError(f"{setting} holds no key, so that nobody would be served; add one.")
    keys = tuple(_key(setting, number, entry) for number, entry in enumerate(entries, 1))
    if len({key.digest for key in keys}) < len(keys):
        raise ConfigurationError(f"{setting} holds one key twice; give each user a key of their own.")
    return keys, signature


def _key(setting: str, number: int, entry: _Entry) -> ApiKey:
    if (entry.key is None) == (entry.sha256 is None):
        raise ConfigurationError(f"{setting}: entry {number} needs either key or sha256.")
    digest = bytes.fromhex(entry.sha256) if entry.sha256 else hashlib.sha256((entry.key or "").encode()).digest()
    for scope in entry.scopes:
        try:
            check_scope(scope)
        except ConfigurationError as error:
            raise ConfigurationError(f"{setting}: entry {number}: {error}") from None
    return ApiKey(digest, Caller(entry.name or f"key {number}", entry.scopes, entry.events_per_second))


def _signature(stat: os.stat_result) -> Signature:
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
