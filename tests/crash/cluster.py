"""The servers and the workers of a run, with a link between each worker and Postgres, and one before each broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.apps.lists import BOOKINGS
from tests.crash.plan import Plan
from tests.crash.points import VARIABLE
from tests.support.fleet import SETTINGS
from tests.support.kafka import KafkaServer
from tests.support.link import Link
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until

SHARED, NAMED = "CRASH_KAFKA", "CRASH_NAME"
"""Variables by which runs that follow each other share a broker: its ports, and the name of the service in this one."""
NAME = os.environ.get(NAMED, "lists")
TOPICS = (NAME, f"{NAME}-echoes", f"{NAME}-told", f"{NAME}-orders", f"{NAME}-work", f"{NAME}-steps")
SIDE = f"{NAME}-side"
"""A topic whose log is meddled with."""
LONG = 100_000
"""With more events it pays that Java compiles as well as it can."""
ENGINE = {
    "HEADRACE_ENGINE_BATCH_RECORDS": "1000",
    "HEADRACE_ENGINE_HANDLER_SECONDS": "2",
    "HEADRACE_ENGINE_RETRY_FIRST_SECONDS": "0.1",
    "HEADRACE_ENGINE_RETRY_MAX_SECONDS": "0.5",
    "HEADRACE_ENGINE_RETRY_ATTEMPTS": "50",
    "HEADRACE_ENGINE_STUCK_SECONDS": "20",
    "HEADRACE_INGEST_TIMEOUT_SECONDS": "2",
}
START_SECONDS = 180.0
"""Within which every worker is ready, however busy the machine is."""
WATCH = Path(__file__).with_name("watch.sql")


@dataclass(eq=False)
class Worker:
    """One process of the service, its connection to Postgres, and the file that arms its crash points."""

    number: int
    service: Service
    link: Link
    point: Path
    is_frozen: bool = False
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the fault that disturbs it."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.service.pid

    @property
    def is_alive(self) -> bool:
        """True while its process exists and is not frozen."""
        return self.service.is_running and not self.is_frozen

    def freeze(self) -> None:
        """Stop it in its tracks."""
        self.is_frozen = True
        self.service.pause()

    def thaw(self) -> None:
        """Let it go on."""
        self.is_frozen = False
        self.service.resume()

    async def restart(self) -> None:
        """Start it again if it has ended; returns before it is ready."""
        if not self.service.is_running:
            await self.service.start(ready=False)


@dataclass(eq=False)
class Cluster:
    """All of it."""

    plan: Plan
    folder: Path
    postgres: PostgresServer
    brokers: list[KafkaServer]
    broker_links: list[Link]
    workers: list[Worker]
    url: str
    """The database, directly."""

    @property
    def bootstrap(self) -> str:
        """The brokers, directly."""
        return self.brokers[0].bootstrap

    @property
    def calls(self) -> Path:
        """The file that has a line for each call to the outside."""
        return self.folder / "calls"

    @property
    def group(self) -> str:
        """What the tables call the subscription of the lists."""
        return f"{NAME}.lists"

    @property
    def deaths_folder(self) -> Path:
        """The folder that has a file for each event that has ended a process."""
        return self.folder / "deaths"

    def deaths(self) -> dict[str, int]:
        """Return how many processes each event has ended."""
        return {file.name: file.stat().st_size for file in self.deaths_folder.iterdir()}


@asynccontextmanager
async def cluster(plan: Plan, folder: Path) -> AsyncIterator[Cluster]:
    """Run the servers and the workers of a plan; yields when every worker is ready."""
    async with AsyncExitStack() as stack:
        brokers, broker_links = await _start_brokers(plan, stack)
        for topic in (*TOPICS, SIDE):
            await _create(brokers, topic, plan.partitions)
        postgres = PostgresServer()
        stack.push_async_callback(postgres.stop)
        await postgres.start()
        url = await stack.enter_async_context(postgres.database())
        await _watch(postgres, url)
        log = "kafka://" + ",".join(f"127.0.0.1:{link.port}" for link in broker_links)
        made = Cluster(plan, folder, postgres, brokers, broker_links, [], url)
        made.deaths_folder.mkdir()
        for number in range(plan.workers):
            made.workers.append(await _worker(made, number, log, stack))
        await asyncio.gather(*(worker.service.start(ready=False) for worker in made.workers))
        for worker in made.workers:
            await until(worker.service.is_ready, f"worker {worker.number} is ready", START_SECONDS)
        yield made


async def _start_brokers(plan: Plan, stack: AsyncExitStack) -> tuple[list[KafkaServer], list[Link]]:
    brokers: list[KafkaServer] = []
    links = []
    if SHARED in os.environ:
        plain, proxied, advertised = os.environ[SHARED].split(",")
        brokers.append(KafkaServer(f"127.0.0.1:{plain}"))
        return brokers, [await stack.enter_async_context(Link(int(proxied), int(advertised)))]
    for _ in range(plan.brokers):
        (port,) = free_ports(1)
        broker = KafkaServer(
            beside=brokers[0] if brokers else None, is_fast=plan.events > LONG, advertised=f"127.0.0.1:{port}"
        )
        stack.push_async_callback(broker.stop)
        await broker.start()
        links.append(await stack.enter_async_context(Link(broker.proxied_port, port)))
        brokers.append(broker)
    return brokers, links


async def _create(brokers: list[KafkaServer], topic: str, partitions: int) -> None:
    """Make a topic that every broker has a replica of, led by each in turn."""
    nodes = [broker.node_id for broker in brokers]
    await brokers[0].create_topic_on(
        topic, [nodes[n % len(nodes) :] + nodes[: n % len(nodes)] for n in range(partitions)]
    )


async def _watch(postgres: PostgresServer, url: str) -> None:
    """Let the server note who changes claims: the links of the workers come from addresses of their own."""
    superuser = await asyncpg.connect(postgres.of_superuser(url))
    _admit_every_loopback_address(Path(await superuser.fetchval("show hba_file")))
    await superuser.execute("alter system set log_line_prefix = '%m %r '")
    await superuser.execute("select pg_reload_conf()")
    await superuser.close()
    connection = await asyncpg.connect(url)
    await connection.execute(WATCH.read_text())
    await connection.execute(BOOKINGS)
    await connection.close()


def _admit_every_loopback_address(rules: Path) -> None:
    with rules.open("a") as file:
        file.write("host all all 127.0.0.0/8 scram-sha-256\n")


async def _worker(made: Cluster, number: int, log: str, stack: AsyncExitStack) -> Worker:
    address = urlsplit(made.url)
    assert address.port is not None
    link = await stack.enter_async_context(Link(address.port, who=lambda: made.workers[number].pid))
    user = address.netloc.rpartition("@")[0]
    own = made.folder / f"worker-{number}"
    own.mkdir()
    settings: Mapping[str, str] = {
        **SETTINGS,
        **ENGINE,
        "HEADRACE_LOG": log,
        "HEADRACE_DATABASE": urlunsplit(address._replace(netloc=f"{user}@127.0.0.1:{link.port}")),
        "APP_NAME": NAME,
        "APP_HANDLERS": made.plan.handlers,
        "APP_DEATHS": str(made.deaths_folder),
        "APP_CALLS": str(made.calls),
        VARIABLE: str(own / "point"),
    }
    service = Service(own, settings, app="tests.apps.lists:app")
    stack.push_async_callback(service.stop)
    return Worker(number, service, link, own / "point")


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has; 0 if it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGESIZE")
