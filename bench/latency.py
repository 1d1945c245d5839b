"""How long an event takes from the moment it should have been sent until its effect is there, at a constant rate.

Open loop: when each event is sent is fixed before the run (Poisson arrivals), and its time counts from then on, also if
it was sent late. A sender that waited for answers would hide exactly the stalls. Each event has a key of its own, so
the row that it made tells when its transaction committed (`track_commit_timestamp`), for every contender alike, and
none has to be changed to be measured. Postgres notes that time just before its flush; how much later another session
sees an effect is measured for a sample of the events and printed beside.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

import asyncpg
from confluent_kafka import Producer
from hdrh.histogram import HdrHistogram

from bench.contenders import BARE_LOOP, Contender, Store
from bench.flush import Flush, measure_flush
from bench.measure import RUN_SECONDS, START_SECONDS, Cpu, process
from bench.observer import Observer
from bench.servers import Servers
from bench.wallets import wallet_event
from tests.support.waiting import until
from tests.support.wallets import Wire

WARM_UP_EVENTS = 500
BROKER_WARM_UP = 2_000, 20.0
"""Events a second, and seconds, before latency is measured: a broker's JVM compiles what it does often."""
LATE_SECONDS = 0.005
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
MAX_MICROSECONDS = 120_000_000
PROBE_PAUSE_SECONDS = 0.05

_COMMITTED = {
    Store.HEADRACE: "select key, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at from headrace.state",
    Store.TABLE: "select customer, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at from wallet",
}
_EXISTS = {
    Store.HEADRACE: "select exists (select from headrace.state where key = $1)",
    Store.TABLE: "select exists (select from wallet where customer = $1)",
}


@dataclass(frozen=True)
class Latency:
    """Milliseconds from an event's intended time to its commit."""

    contender: str
    rate: int
    events: int
    percentiles: dict[str, float]
    curve: list[tuple[float, float]]
    """(percentile, milliseconds), for a plot."""
    max: float
    late_ratio: float
    """Events that left the sender later than 5 ms after their time; above 0.01 the sender is the bottleneck."""
    seen_later_ms: float
    """Median of how much later another session saw the effect."""
    cpu: Cpu
    """What was used from the first event that counts to the last effect."""
    flush: Flush
    fault: str


async def prepare_latency(servers: Servers, partitions: int) -> None:
    """Make Postgres note when each transaction committed, for which it starts again, and warm the broker up."""
    connection = await asyncpg.connect(servers.postgres.url)
    await connection.execute("alter system set track_commit_timestamp = on")
    await connection.close()
    await servers.postgres.shut_down()
    await servers.postgres.start()
    await measure_latency(servers, BARE_LOOP, partitions, *BROKER_WARM_UP)


async def measure_latency(
    servers: Servers, contender: Contender, partitions: int, rate: int, seconds: float
) -> Latency:
    """Send events at `rate` a second to an idle contender and tell how long each took."""
    count = round(rate * seconds)
    topic = await servers.topic("wallets", partitions, 0, count)
    sender = Sender(servers, topic.name, count, rate)
    async with servers.database() as url:
        flush = await measure_flush(url)
        connection = await asyncpg.connect(url)
        observer = Observer(connection, contender)

        async def applied(events: int) -> bool:
            return await observer.applied() >= events

        async with process(servers, contender, topic, url) as worker:
            sender.warm_up()
            await until(lambda: applied(WARM_UP_EVENTS), f"{contender.label} is warm", START_SECONDS)
            cpu = Cpu.so_far(worker.pid, servers)
            sent = asyncio.create_task(asyncio.to_thread(sender.run))
            seen = await _probe(connection, contender, sender, sent)
            await sent
            await until(lambda: applied(WARM_UP_EVENTS + count), "all events have effect", RUN_SECONDS)
            cpu = Cpu.so_far(worker.pid, servers).since(cpu)
            rows = await connection.fetch(_COMMITTED[contender.store])
        await connection.close()
    committed = {row[0]: row[1] for row in rows}
    return _figures(contender, rate, sender, committed, seen, cpu, flush)


async def _probe(
    connection: asyncpg.Connection, contender: Contender, sender: Sender, sent: asyncio.Task[None]
) -> dict[str, float]:
    """Return when this session saw the effects of some events, while they are sent."""
    seen: dict[str, float] = {}
    while not sent.done():
        await asyncio.sleep(PROBE_PAUSE_SECONDS)
        if await _is_seen(connection, contender, key := key_of(sender.sent)):
            seen[key] = time.time()
    return seen


async def _is_seen(connection: asyncpg.Connection, contender: Contender, key: str) -> bool:
    """Wait for the effect by looking once a millisecond; give up after a second."""
    for _ in range(1_000):
        if await connection.fetchval(_EXISTS[contender.store], key):
            return True
        await asyncio.sleep(0.001)
    return False


def _figures(
    contender: Contender,
    rate: int,
    sender: Sender,
    committed: dict[str, float],
    seen: dict[str, float],
    cpu: Cpu,
    flush: Flush,
) -> Latency:
    histogram = HdrHistogram(1, MAX_MICROSECONDS, 3)
    missing = 0
    for number, intended in enumerate(sender.intended):
        at = committed.get(key_of(number))
        if at is None:
            missing += 1
        else:
            histogram.record_value(max(1, round((at - intended) * 1e6)))
    later = [at - committed[key] for key, at in seen.items() if key in committed]
    shown = [each for each in PERCENTILES if (1 - each / 100) * len(sender.intended) >= 10]
    return Latency(
        contender.name,
        rate,
        len(sender.intended),
        {f"p{each:g}": histogram.get_value_at_percentile(each) / 1e3 for each in shown},
        [(p, histogram.get_value_at_percentile(p) / 1e3) for p in _curve(len(sender.intended))],
        histogram.get_max_value() / 1e3,
        sender.late / len(sender.intended),
        median(later) * 1e3 if later else 0.0,
        cpu,
        flush,
        f"{missing} events had no effect" if missing else "",
    )


def _curve(events: int) -> list[float]:
    """Return percentiles in even steps of log(1 / (1 - q)), as far as there are ten events behind one."""
    points, left = [], 1.0
    while left * events >= 10:
        points.append(100 * (1 - left))
        left /= 10**0.125
    return points


def key_of(number: int) -> str:
    """Return the key of one event."""
    return f"probe-{number}"


class Sender:
    """Sends events at times that are fixed before."""

    def __init__(self, servers: Servers, topic: str, count: int, rate: int) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": servers.kafka.bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
                "acks": "all",
            }
        )
        self._topic = topic
        randomness = random.Random(rate)
        self._form, self._is_traced, self._randomness = servers.form, servers.is_traced, randomness
        self._events = [self._event(key_of(number)) for number in range(count)]
        gaps = [randomness.expovariate(rate) for _ in range(count)]
        self._offsets = list(accumulate(gaps))
        self.intended: list[float] = []
        """Unix seconds."""
        self.sent = 0
        self.late = 0

    def warm_up(self) -> None:
        """Send the events that are not counted."""
        for number in range(WARM_UP_EVENTS):
            self._send(self._event(f"warm-{number}"))
        assert self._producer.flush(30) == 0

    def run(self) -> None:
        """Send all events; for a thread."""
        begin = time.time() + 0.1
        self.intended = [begin + offset for offset in self._offsets]
        pause = threading.Event()
        for number, (event, at) in enumerate(zip(self._events, self.intended, strict=True)):
            left = at - time.time()
            if left > 0:
                pause.wait(left)
            elif left < -LATE_SECONDS:
                self.late += 1
            self._send(event)
            self.sent = number
        assert self._producer.flush(30) == 0

    def _event(self, key: str) -> Wire:
        return wallet_event(self._randomness, key, 1, self._form, is_credit=True, is_traced=self._is_traced)

    def _send(self, event: Wire) -> None:
        self._producer.produce(self._topic, event.value, event.key, headers=list(event.headers))
        self._producer.poll(0)
