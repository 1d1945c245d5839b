"""Who is measured: the command that starts each, and how to see from outside what it has applied."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import Enum

PYTHON = sys.executable


class Store(Enum):
    """Where a contender keeps the wallets."""

    HEADRACE = "headrace"
    """In `headrace.state`; the claims tell what is applied, the ledger is the dedupe's cost."""
    TABLE = "wallet"
    """In the table `wallet` of `peers/schema.sql`; the dedupe's cost, if there is dedupe, is the table `inbox`."""
    NONE = "none"
    """It measures itself and prints the figures: one half of the work, apart."""


@dataclass(frozen=True)
class Contender:
    """One process that reads the topic."""

    name: str
    label: str
    command: tuple[str, ...]
    store: Store
    environment: dict[str, str] = field(default_factory=dict)


def peer(name: str, label: str, store: Store = Store.TABLE) -> Contender:
    """Return a contender that is a module of `bench.peers`."""
    return Contender(name, label, (PYTHON, "-m", f"bench.peers.{name.replace('-', '_')}"), store)


def headrace(name: str, label: str, app: str, store: Store = Store.HEADRACE, **settings: str) -> Contender:
    """Return a contender that is a service of Headrace with default settings."""
    command = (PYTHON, "-m", "headrace", "run", app, "--role", "worker")
    return Contender(name, label, command, store, settings)


FETCH_ALONE = peer("fetch-alone", "fetching alone", Store.NONE)
UPSERT_ALONE = peer("upsert-alone", "upserting alone", Store.NONE)
BARE_LOOP = peer("bare-loop", "bare loop, at least once")
PYDANTIC = headrace("headrace-pydantic", "Headrace, Pydantic", "shop.service:app", HEADRACE_SUBSCRIPTIONS="wallets")
MSGSPEC = headrace("headrace-msgspec", "Headrace, msgspec", "bench.peers.headrace_msgspec:app")

FAST = (FETCH_ALONE, UPSERT_ALONE, BARE_LOOP, PYDANTIC, MSGSPEC)
QUICK = (FETCH_ALONE, BARE_LOOP, PYDANTIC, MSGSPEC)
