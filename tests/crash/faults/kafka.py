"""Brokers that die, freeze and come back; transactions of other producers that are aborted, or hang."""

from __future__ import annotations

import asyncio
import json
import threading

from confluent_kafka import Producer

from tests.crash.cluster import NAME
from tests.crash.history import Fault
from tests.crash.machine import Machine
from tests.crash.plan import Step
from tests.support.kafka import KafkaServer

FROZEN_SECONDS = (2.0, 9.0)
HANGING_SECONDS = (2.0, 8.0)
ABORTED = 50
"""Records in an aborted transaction."""


async def kill_broker(machine: Machine, step: Step, fault: Fault) -> None:
    """A broker ends with -9, and comes back on the same data."""
    broker = _choose(machine, fault)
    async with machine.kafka_lock:
        await broker.restart()


async def freeze_broker(machine: Machine, step: Step, fault: Fault) -> None:
    """A broker is stopped in its tracks, and goes on."""
    broker = _choose(machine, fault)
    async with machine.kafka_lock:
        broker.pause()
        try:
            await asyncio.sleep(machine.chance.uniform(*FROZEN_SECONDS))
        finally:
            broker.resume()


async def abort_transaction(machine: Machine, step: Step, fault: Fault) -> None:
    """Another producer's transaction is aborted: its records are in the log, and are not to be applied."""
    await asyncio.to_thread(_transact, machine.cluster.bootstrap, step, 0.0)


async def hang_transaction(machine: Machine, step: Step, fault: Fault) -> None:
    """Another producer's transaction stays open for a while: nothing behind it may be read until it is aborted."""
    seconds = machine.chance.uniform(*HANGING_SECONDS)
    fault.detail = f"{seconds:.1f} s"
    await asyncio.to_thread(_transact, machine.cluster.bootstrap, step, seconds)


def _choose(machine: Machine, fault: Fault) -> KafkaServer:
    """Return a broker; of several, one that is not the only controller."""
    brokers = machine.cluster.brokers
    broker = machine.chance.choice(brokers[1:] or brokers)
    fault.detail = f"broker {broker.node_id}"
    return broker


def _transact(bootstrap: str, step: Step, seconds: float) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": f"crash-{step.number}",
            "transaction.timeout.ms": 20_000,
            "partitioner": "murmur2_random",
            "log_level": 0,
        }
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    for number in range(ABORTED):
        key = f"aborted-{step.number}-{number}"
        headers: list[tuple[str, str | bytes | None]] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{key}/0".encode()),
            ("ce_source", b"/crash"),
            ("ce_type", b"noted"),
            ("content-type", b"application/json"),
        ]
        value = json.dumps({"key": key, "number": 0}).encode()
        producer.produce(NAME, value, key.encode(), headers=headers)
    producer.flush(30)
    threading.Event().wait(seconds)
    producer.abort_transaction(60)
