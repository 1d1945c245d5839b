"""The curves: what is changed, in which steps, and the topic that each step reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import asyncpg

from bench.contenders import UPSERT_ALONE, Contender, headrace
from bench.servers import Servers, Topic

STORE = """
insert into headrace.state (subscription, state, key, partition, version, data)
select 'shop.wallets-0', 'wallet', 'customer-' || number, 0, 1,
       '{{"balance": 0, "credits": 0, "debits": 0, "applied": 0}}'
from generate_series(0, {keys} - 1) as number order by 3
"""
STORE_WALLETS = """
insert into wallet (customer) select 'customer-' || number from generate_series(0, {keys} - 1) as number order by 1
"""
STORE_SECONDS = 1_800.0
SERVICE = headrace("headrace-growth", "Headrace, msgspec", "bench.growth.service:app")


@dataclass(frozen=True)
class Step:
    """One point of a curve; what is not named is as in the other steps."""

    x: int
    events: int = 300_000
    keys: int = 10_000
    partitions: int = 6
    note_bytes: int = 0
    emits: int = 0
    subscriptions: int = 1
    processes: int = 1
    stored_keys: int = 0
    """Keys that have a state already."""
    upserts_alone: bool = False
    """True if nothing is read or decoded, and the rows of a table alone are upserted: what Postgres can do."""
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def contender(self) -> Contender:
        """The service with this step's load, or what only upserts."""
        if self.upserts_alone:
            return UPSERT_ALONE
        load = {"EMITS": str(self.emits), "SUBSCRIPTIONS": str(self.subscriptions)}
        command = SERVICE.command
        if self.processes > 1:
            command = (*command, "--workers", str(self.processes))
        return replace(
            SERVICE,
            command=command,
            environment=load | self.settings,
            applications=self.subscriptions,
            processes=self.processes,
        )

    async def prepare(self, url: str) -> None:
        """Store the states, or rows, that exist before the run."""
        if self.stored_keys:
            table, store = ("wallet", STORE_WALLETS) if self.upserts_alone else ("headrace.state", STORE)
            connection = await asyncpg.connect(url)
            await connection.execute(store.format(keys=self.stored_keys), timeout=STORE_SECONDS)
            await connection.execute(f"vacuum analyze {table}", timeout=STORE_SECONDS)
            await connection.close()

    async def topic(self, servers: Servers, known: dict[tuple[int, ...], Topic]) -> Topic:
        """Return the step's topic; steps with the same events share one."""
        form = (self.partitions, self.events, self.keys, self.note_bytes)
        if form not in known:
            known[form] = await servers.topic(f"growth-{'-'.join(map(str, form))}", *form)
        return replace(known[form], emits=self.events * self.emits * self.subscriptions)


@dataclass(frozen=True)
class Curve:
    """A line of steps."""

    name: str
    axis: str
    steps: Sequence[Step]
    is_logarithmic: bool = True


def curves(most_keys: int) -> list[Curve]:
    """Return all curves."""
    setting = "HEADRACE_ENGINE_BATCH_RECORDS"
    sizes = {10: 20_000, 100: 100_000, 1_000: 300_000, 10_000: 300_000, 50_000: 300_000}
    window = "HEADRACE_ENGINE_DEDUPE_WINDOW_IDS"
    keys = [number for number in (10_000, 100_000, 1_000_000, 10_000_000) if number <= most_keys]
    notes = {0: 200_000, 1_000: 100_000, 10_000: 20_000, 100_000: 3_000}
    return [
        Curve(
            "batch", "records of a batch, at most", [Step(x, n, settings={setting: str(x)}) for x, n in sizes.items()]
        ),
        Curve("keys", "keys", [Step(number, max(600_000, number), number) for number in keys]),
        Curve(
            "stored-keys",
            "keys, all of which have a state already",
            [Step(number, 1_000_000, number, stored_keys=number) for number in keys],
        ),
        Curve(
            "stored-keys-upserts",
            "keys, upserting alone",
            [Step(number, 1_000_000, number, stored_keys=number, upserts_alone=True) for number in keys],
        ),
        Curve(
            "window",
            "ids of the dedupe window, one partition",
            [Step(x, 1_000_000, partitions=1, settings={window: str(x)}) for x in (1_000, 10_000, 100_000, 1_000_000)],
        ),
        Curve("payload", "bytes of an event's data", [Step(x or 40, n, note_bytes=x) for x, n in notes.items()]),
        Curve("emits", "emits per event", [Step(x, 100_000, emits=x) for x in (0, 1, 3, 10)], is_logarithmic=False),
        Curve("subscriptions", "subscriptions", [Step(x, 200_000, subscriptions=x) for x in (1, 2, 4, 8)]),
        Curve("partitions", "partitions", [Step(x, partitions=x) for x in (1, 3, 6, 24)]),
        Curve(
            "processes",
            "processes",
            [Step(x, 1_000_000, partitions=12, processes=x) for x in (1, 2, 3)],
            is_logarithmic=False,
        ),
    ]
