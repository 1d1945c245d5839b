"""`python -m bench.steps`: what each step of a batch costs in memory, without log, Postgres and other partitions.

Of each step the quickest batch counts, since whatever else runs on the machine only adds to it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar
from uuid import uuid4

from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as KafkaPartition
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console
from rich.table import Table

from bench.wallets import wallet_events
from headrace.engine.batch import emitter_of
from headrace.engine.claim import Claim
from headrace.engine.commit import ledger_row
from headrace.engine.decode import BatchDecoder
from headrace.engine.effects import Effects, StateRow
from headrace.engine.memory import PartitionMemory, keys_by_state
from headrace.engine.policies import Policies
from headrace.engine.report import observe_ages
from headrace.engine.run import Run
from headrace.engine.settle import changed_states, settle
from headrace.engine.threads import HandlerThreads
from headrace.engine.trace import batch_facts, trace_batch
from headrace.garbage import tune_garbage_collection
from headrace.item import Item, Outcome
from headrace.ledger.rows import Kind
from headrace.ledger.window import DedupeWindow
from headrace.log.kafka_records import RecordBatches
from headrace.log.ports import Record, TopicPartition
from headrace.log.sizes import leading
from headrace.platform import Headrace
from headrace.settings import EngineSettings
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.own_provider import OwnProvider
from headrace.telemetry.providers import MARKS
from headrace.telemetry.sampling import event_sampler
from headrace.telemetry.tracing import Tracing
from tests.support.wallets import Expected, Wire

APPS = {"pydantic": "shop.service", "msgspec": "bench.peers.headrace_msgspec"}
BATCH_BYTES = 262_144
ZSTD = 4
ROW = {
    "log_id": "bench",
    "topic_id": None,
    "epoch": 1,
    "next_offset": 0,
    "sequence": 0,
    "emitted_through": 0,
    "crashes": 0,
    "last_offset": None,
    "last_timestamp": None,
    "last_size": None,
    "last_crc": None,
}
T = TypeVar("T")


class Steps:
    """The steps of the batches of one partition; each one's seconds are added up."""

    def __init__(self, platform: Headrace) -> None:
        self._platform = platform
        platform.registry.complete()
        self._subscription = platform.registry.subscriptions["wallets"]
        settings = EngineSettings()
        policies = Policies(self._subscription, settings)
        self._memory = PartitionMemory(settings, self._subscription.states, policies.of)
        self._memory.windows["wallets"] = DedupeWindow(settings.dedupe_window_ids)
        registry = platform.registry
        self._decoder = BatchDecoder(self._subscription, registry.types, registry.decoders)
        self._threads = HandlerThreads("wallets", 1)
        self._spans = InMemorySpanExporter()
        self._tracing = Tracing(provider=OwnProvider(SimpleSpanProcessor(self._spans), event_sampler(MARKS)))
        place = TopicPartition("wallets", 0)
        self._claim = Claim(
            "shop.wallets", place, uuid4(), ROW, is_orphaned=False, seconds_released=None, suspect_records=0
        )
        self._ages = Metrics(version="bench", role="worker").event_age_seconds.labels(subscription="wallets")
        self._max_bytes = settings.batch_bytes
        self.seconds: dict[str, float] = {}

    def _timed(self, step: str, work: Callable[[], T]) -> T:
        started = time.process_time()
        result = work()
        self.seconds[step] = self.seconds.get(step, 0.0) + time.process_time() - started
        return result

    async def apply(self, fetched: bytes, offset: int, count: int) -> None:
        """Take one batch through everything that is computed for it; `fetched` are the bytes of the broker's answer."""
        memory, timed = self._memory, self._timed
        records = timed("read", lambda: _read(fetched, offset, count))
        began_ns = time.time_ns()
        timed("sizes", lambda: leading(records, len(records), self._max_bytes))
        items = timed("decode", lambda: self._decoder.decode(records, memory.windows["wallets"].marks))
        timed("hold back", lambda: memory.lanes.hold_back(items))
        timed("load", lambda: self._load(items))
        run = self._run(items)
        started = time.process_time()
        await run.execute(self._threads, None)
        self.seconds["run"] = self.seconds.get("run", 0.0) + time.process_time() - started
        states = timed("encode states", lambda: changed_states(memory.caches, run))
        effects = timed("settle", lambda: self._settle(run, states))
        timed("ledger row", lambda: ledger_row(1, 1, records[0].offset, effects))
        timed("ages", lambda: self._observe(effects))
        timed("follow", lambda: memory.follow("wallets", effects))
        timed("trace", lambda: self._trace(run, effects, began_ns))
        timed("export spans", lambda: encode_spans(self._spans.get_finished_spans()).SerializeToString())
        self._spans.clear()
        assert effects.total({Outcome.APPLIED}) == len(records)
        timed("let go", lambda: _let_go(items, effects))

    def _load(self, items: Sequence[Item]) -> None:
        for name, keys in keys_by_state(items, Outcome.READY, self._memory.caches).items():
            cache = self._memory.caches[name]
            for key in cache.missing(keys):
                cache.put(key, b"", 0)

    def _run(self, items: Sequence[Item]) -> Run:
        return Run(
            items,
            self._memory.caches,
            emitter_of(self._platform.registry, self._subscription, 1_000_000),
            careful=False,
            timeout_seconds=30.0,
            observe=lambda handler, seconds: None,
            failed=lambda item, error: None,
            tracing=self._tracing,
        )

    def _settle(self, run: Run, states: dict[str, list[StateRow]]) -> Effects:
        effects = Effects(Kind.BATCH, run.items, run.items[-1].record.offset + 1, None, emits=run.emitter.emitted)
        effects.states = states
        settle(effects, self._memory.lanes)
        return effects

    def _trace(self, run: Run, effects: Effects, began_ns: int) -> None:
        facts = batch_facts(self._claim, run.items, began_ns, time.time_ns(), run.calls)
        trace_batch(self._tracing, facts._replace(commit_ns=began_ns), effects)

    def _observe(self, effects: Effects) -> None:
        observe_ages(self._ages, 1, [item.record.timestamp for item in effects.items])


def _let_go(items: list[Item], effects: Effects) -> None:
    for each in (items, effects.seen, effects.emits):
        each.clear()
    effects.items = ()


def _fetched(wires: Sequence[Wire], offset: int) -> bytes:
    """Return the record batches that hold the events, as a producer of Headrace makes them."""
    batches, waiting = b"", list(enumerate(wires, offset))
    while waiting:
        base = waiting[0][0]
        builder = DefaultRecordBatchBuilder(2, ZSTD, False, -1, -1, -1, BATCH_BYTES)
        while waiting:
            number, wire = waiting[0]
            headers = [(name, value.encode() if isinstance(value, str) else value) for name, value in wire.headers]
            if builder.append(number - base, 1_000, wire.key, wire.value, headers) is None:
                break
            waiting.pop(0)
        batches += base.to_bytes(8) + bytes(builder.build())[8:]
    return batches


def _read(fetched: bytes, offset: int, count: int) -> Sequence[Record]:
    place = KafkaPartition("wallets", 0)
    part = RecordBatches(place, MemoryRecords(fetched), [], offset, None, None, True, READ_COMMITTED)
    part.answer = fetched
    return part.take(count)


async def measure(app: str, batches: int, events: int, keys: int) -> dict[str, float]:
    """Return microseconds per event of each step: of the quickest batch, but for the first few."""
    steps = Steps(importlib.import_module(APPS[app]).events)
    wires = wallet_events(Expected(), batches * events, keys, "own")
    rounds: list[dict[str, float]] = []
    for number in range(batches):
        fetched = _fetched(list(islice(wires, events)), number * events)
        steps.seconds = {}
        await steps.apply(fetched, number * events, events)
        rounds.append(steps.seconds)
    kept = rounds[len(rounds) // 5 :]
    return {step: min(each[step] for each in kept) / events * 1e6 for step in kept[0]}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--events", type=int, default=3_000, help="in a batch")
    parser.add_argument("--keys", type=int, default=1_700, help="of the partition")
    arguments = parser.parse_args()
    tune_garbage_collection()
    found = {app: asyncio.run(measure(app, arguments.batches, arguments.events, arguments.keys)) for app in APPS}
    table = Table("step", *(f"{app}, µs" for app in found), title="per event, in the quickest batch")
    for step in found["msgspec"]:
        table.add_row(step, *(f"{steps[step]:.2f}" for steps in found.values()))
    table.add_row("all", *(f"{sum(steps.values()):.2f}" for steps in found.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
