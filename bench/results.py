"""What a sitting leaves behind: JSON with every run, a page with the tables, and plots."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from bench.comparison import Comparison
from bench.counts import Counted
from bench.latency import Latency
from bench.plots import plot_latency, plot_throughput
from bench.processes import machine
from bench.servers import Servers
from bench.tables import count_rows, flush_line, latency_rows, markdown, ratio_rows, throughput_rows
from tests.support.kafka.installation import find_jars

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("aiokafka", "asyncpg", "faststream", "msgspec", "pydantic", "sqlalchemy", "uvloop")
_SHOWN = ("shared_buffers", "fsync", "synchronous_commit", "full_page_writes", "max_wal_size", "wal_compression")


async def environment(servers: Servers, settings: Mapping[str, object]) -> dict[str, Any]:
    """Return what the figures depend on."""
    connection = await asyncpg.connect(servers.postgres.url)
    postgres = {name: await connection.fetchval("select current_setting($1)", name) for name in _SHOWN}
    version = await connection.fetchval("select current_setting('server_version')")
    await connection.close()
    kafka = next(find_jars().glob("kafka-clients-*.jar")).stem.rpartition("-")[2]
    versions = {"python": platform.python_version(), "postgresql": version, "kafka": kafka}
    return {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "versions": versions | {name: importlib.metadata.version(name) for name in PACKAGES},
        "settings": dict(settings),
        "postgres": postgres,
        "kafka": "one broker, acks=all",
    }


def write_results(
    folder: Path,
    comparison: Comparison,
    counted: Sequence[Counted],
    latencies: Sequence[Latency],
    environment: Mapping[str, Any],
) -> None:
    """Write `peers.json`, `peers.md` and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [
        dataclasses.asdict(run) | {"cpu": run.cpu._asdict(), "cost": run.cost._asdict(), "flush": run.flush._asdict()}
        for run in comparison.runs
    ]
    found = [
        dataclasses.asdict(each) | {"cpu": each.cpu._asdict(), "flush": each.flush._asdict()} for each in latencies
    ]
    whole = {
        "environment": environment,
        "ratios": comparison.ratios,
        "runs": runs,
        "counts": [{"contender": each.contender, "events": each.events, **each.counts._asdict()} for each in counted],
        "latency": found,
    }
    (folder / "peers.json").write_text(json.dumps(rounded(whole), indent=1) + "\n")
    (folder / "peers.md").write_text(page(comparison, counted, latencies, environment))
    if comparison.runs:
        plot_throughput(comparison, folder)
    if latencies:
        plot_latency(latencies, folder)


def page(
    comparison: Comparison, counted: Sequence[Counted], latencies: Sequence[Latency], environment: Mapping[str, Any]
) -> str:
    """Return the tables with what they were measured on."""
    machine_, versions, settings = environment["machine"], environment["versions"], environment["settings"]
    flushes = [run.flush for run in comparison.runs] + [each.flush for each in latencies]
    parts = [
        f"Measured at {environment['at']} by `make bench` on {machine_['cores']} cores ({machine_['processor']}) and "
        f"{machine_['memory_gib']} GiB that Kafka, PostgreSQL and the benchmark share. "
        f"{settings['events']:,} events, {settings['customers']:,} keys, {settings['partitions']} partitions; "
        f"records: {settings['records']}, traces: {settings['traces']}. {flush_line(flushes)}",
    ]
    if comparison.runs:
        parts += [markdown(throughput_rows(comparison)), markdown(ratio_rows(comparison))]
    if comparison.harmonic_bound is not None:
        parts.append(f"Harmonic bound of fetching and upserting alone: {comparison.harmonic_bound:,.0f} events/s.")
    if counted:
        parts.append(markdown(count_rows(counted)))
    if latencies:
        parts.append(markdown(latency_rows(latencies)))
    parts.append("Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return "\n\n".join(parts) + "\n"


def rounded(value: Any) -> Any:
    """Return the value with its numbers rounded to what they are worth."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: rounded(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(member) for member in value]
    return value
