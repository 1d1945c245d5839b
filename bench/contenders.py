"""Who is measured: the command that starts each, and how to see from outside what it has applied."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain

PYTHON = sys.executable
NO_TAX = "a copy is applied again"
SLOW_ROUNDS = 2
"""Rates of some hundred a second vary less than a tenth."""


class Store(Enum):
    """Where a contender keeps the wallets."""

    HEADRACE = "headrace"
    """In `headrace.state`; the claims tell what is applied, the ledger is the dedupe's cost."""
    TABLE = "wallet"
    """In the table `wallet` of `peers/schema.sql`; the dedupe's cost is the table `inbox`, or Headrace's ledger."""
    NONE = "none"
    """It measures itself and prints the figures: one half of the work, apart."""


@dataclass(frozen=True)
class Contender:
    """One process that reads the topic."""

    name: str
    label: str
    promise: str
    """What becomes of an event when the process dies, and of the order of a key."""
    command: tuple[str, ...]
    store: Store
    most_events: int | None = None
    """A slow one reads a shorter topic: the rates compare all the same. None: all events."""
    environment: dict[str, str] = field(default_factory=dict)
    applications: int = 1
    """How often it applies each event: once for each subscription."""
    processes: int = 1
    """How many share the partitions."""

    @property
    def is_slow(self) -> bool:
        """True if it is measured in SLOW_ROUNDS rounds."""
        return self.most_events is not None


def peer(name: str, label: str, promise: str, most_events: int | None = None, store: Store = Store.TABLE) -> Contender:
    """Return a contender that is a module of `bench.peers`."""
    command = (PYTHON, "-m", f"bench.peers.{name.replace('-', '_')}")
    return Contender(name, label, promise, command, store, most_events)


def headrace(
    name: str, label: str, app: str, most_events: int | None = None, store: Store = Store.HEADRACE, **settings: str
) -> Contender:
    """Return a contender that is a service of Headrace with default settings."""
    command = (PYTHON, "-m", "headrace", "run", app, "--role", "worker")
    return Contender(name, label, "exactly once, in order", command, store, most_events, dict(settings))


FETCH_ALONE = peer("fetch-alone", "fetching alone", "half of the work", store=Store.NONE)
UPSERT_ALONE = peer("upsert-alone", "upserting alone", "half of the work", store=Store.NONE)
BARE_LOOP = peer("bare-loop", "bare loop", "at least once, in order")
PYDANTIC = headrace("headrace-pydantic", "Headrace, Pydantic", "shop.service:app", HEADRACE_SUBSCRIPTIONS="wallets")
MSGSPEC = headrace("headrace-msgspec", "Headrace, msgspec", "bench.peers.headrace_msgspec:app")
FASTSTREAM_BATCH = peer("faststream-batch", "FastStream, batches, own transaction", "exactly once, in order", 200_000)
FASTSTREAM_CONCURRENT = peer(
    "faststream-concurrent", "FastStream, inbox, 20 workers", "at most once, any order", 20_000
)
FASTSTREAM_IN_ORDER = peer("faststream-in-order", "FastStream, inbox, one by one", "exactly once, in order", 2_000)
SQLALCHEMY_ORM = peer("sqlalchemy-orm", "aiokafka + SQLAlchemy, tutorial", "at least once, in order", 2_000)
HEADRACE_SQL = headrace(
    "headrace-sql", "Headrace, own SQL for each event", "bench.peers.headrace_sql:app", 20_000, Store.TABLE
)
SQLALCHEMY_UPSERT = peer("sqlalchemy-upsert", "aiokafka + SQLAlchemy, own SQL", "at least once, in order", 2_000)


def taxed_and_untaxed(of: Contender, service: str) -> tuple[Contender, Contender]:
    """Return the same service without the extension in C, as it is and without dedupe and ledger.

    In C there is nothing that a process could leave out for itself.
    """
    environment = {**of.environment, "SERVICE": service}
    label = f"{of.label}, in Python alone"
    command = headrace(of.name, label, "bench.peers.headrace_in_python:app").command
    taxed = replace(of, name=f"{of.name}-in-python", label=label, command=command, environment=environment)
    label = f"{of.label}, no dedupe, no ledger"
    command = headrace(of.name, label, "bench.peers.headrace_untaxed:app").command
    return taxed, replace(taxed, name=f"{of.name}-untaxed", label=label, promise=NO_TAX, command=command)


TAX = (
    taxed_and_untaxed(PYDANTIC, "shop.service"),
    taxed_and_untaxed(MSGSPEC, "bench.peers.headrace_msgspec"),
)
"""(with what makes it exactly once, without)"""

QUICK = (FETCH_ALONE, BARE_LOOP, PYDANTIC, MSGSPEC)
ALL = (
    *(FETCH_ALONE, UPSERT_ALONE, BARE_LOOP, PYDANTIC, MSGSPEC),
    *(FASTSTREAM_BATCH, FASTSTREAM_CONCURRENT, FASTSTREAM_IN_ORDER, SQLALCHEMY_ORM, HEADRACE_SQL, SQLALCHEMY_UPSERT),
)
LATENCY_LOW = (
    BARE_LOOP,
    PYDANTIC,
    MSGSPEC,
    FASTSTREAM_BATCH,
    FASTSTREAM_CONCURRENT,
    FASTSTREAM_IN_ORDER,
    SQLALCHEMY_ORM,
)
"""Those whose latency is measured at a rate that all of them hold."""
LATENCY_HIGH = (BARE_LOOP, PYDANTIC, MSGSPEC, FASTSTREAM_BATCH, FASTSTREAM_CONCURRENT)
"""Those that hold 2,000 events a second."""

BY_NAME = {contender.name: contender for contender in (*ALL, *chain.from_iterable(TAX))}
LABELS = {name: contender.label for name, contender in BY_NAME.items()}


def chosen(names: str, of: Sequence[Contender]) -> Sequence[Contender]:
    """Return the contenders with these names, separated by commas; all of them for "". Raises: SystemExit."""
    if not names:
        return of
    if unknown := set(names.split(",")) - BY_NAME.keys():
        raise SystemExit(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names.split(",")]
