"""I9: when all is quiet, what an owner keeps in memory is what Postgres has."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from headrace.engine.worker import Phase
from headrace.ledger.rows import IDENTITY_BYTES
from tests.simulation.checkers.violation import Violation

if TYPE_CHECKING:
    from headrace.engine.tenure import Tenure
    from tests.simulation.simulation import Simulation


def check_memory(simulation: Simulation) -> None:
    """Compare the memory of every owner with the tables. Raises: Violation."""
    for pod in simulation.pods:
        for consumer in pod.consumers:
            for number, worker in consumer.workers.items():
                if worker.phase is Phase.RUNNING and worker.tenure is not None:
                    where = f"{pod.process.name}, {consumer.group}/{number}"
                    _check_caches(simulation, worker.tenure, consumer.group, where)
                    _check_windows(simulation, worker.tenure, consumer.group, where)


def _check_caches(simulation: Simulation, tenure: Tenure, group: str, where: str) -> None:
    for name, cache in tenure.memory.caches.items():
        for key, entry in cache.entries.items():
            row = simulation.server.tables.get("state", (group, name, key))
            if row is not None and (row["expires_at"] or math.inf) < simulation.server.now():
                continue  # nothing to the owner, and still a row
            value = json.loads(cache.state.encode(entry.value))
            stored = (
                json.loads(row["data"]) if row is not None else json.loads(cache.state.encode(cache.state.create()))
            )
            version = row["version"] if row is not None else 0
            if (value, entry.version) != (stored, version):
                raise Violation(
                    "I9 the cache is what Postgres has",
                    f"{where}: {key} is {value} in version {entry.version}, and {stored} in version {version}",
                )
    if tenure.memory.calls.total:
        raise Violation("I9 calls are what Postgres has", f"{where}: {tenure.memory.calls.total} are left")
    if tenure.memory.lanes.by_key:
        raise Violation("I9 lanes are what Postgres has", f"{where}: {sorted(tenure.memory.lanes.by_key)} are left")


def _check_windows(simulation: Simulation, tenure: Tenure, group: str, where: str) -> None:
    for topic, holding in tenure.holdings.items():
        place = (group, topic, holding.claim.partition.partition)
        claim = simulation.server.tables.get("claim", place)
        if claim is None or claim["sequence"] != holding.claim.sequence or claim["token"] != holding.claim.token:
            raise Violation("I9 the claim is what Postgres has", f"{where}: its claim is another one")
        rows = simulation.server.tables.group("ledger", place).values()
        ids = {row["ids"][at : at + IDENTITY_BYTES] for row in rows for at in range(0, len(row["ids"]), IDENTITY_BYTES)}
        if len(ids) < simulation.plan.window_ids and ids != set(tenure.memory.windows[topic].marks):
            raise Violation("I9 the window is what the ledger has", f"{where}: {len(ids)} ids are in the ledger")
