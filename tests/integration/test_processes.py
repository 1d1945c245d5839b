"""`headrace run --workers N`: processes behind one port that share a topic's partitions, and are looked after."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command import headrace
from tests.support.kafka import KafkaServer
from tests.support.proc import stat_fields
from tests.support.service import Service
from tests.support.small_app import publish, write_small_app
from tests.support.waiting import until
from tests.support.web import http_client

PARTITIONS = 4


@pytest.fixture
def settings(kafka: KafkaServer, database_url: str) -> dict[str, str]:
    return {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url, "HEADRACE_PARTITIONS": str(PARTITIONS)}


@pytest.fixture
async def service(tmp_path: Path, topic_name: str, settings: dict[str, str]) -> AsyncIterator[Service]:
    """Two processes of a small service, both up; whatever becomes of them, they are gone at the end."""
    app = write_small_app(tmp_path, topic_name)
    service = Service(tmp_path, settings, app=app, workers=2)
    children: set[int] = set()
    try:
        await service.start()
        await until(lambda: both_are_ready(service), "both processes are ready", 60)
        children = service.children
        yield service
    finally:
        children |= service.children if service.is_running else set()
        await service.stop()
        await until(lambda: not any(map(is_alive, children)), "no process outlives its parent", 60)


def is_alive(pid: int) -> bool:
    return stat_fields(pid)[:1] not in ([], ["Z"])


async def page(service: Service, path: str) -> str:
    async with http_client() as client:
        return (await client.get(f"http://127.0.0.1:{service.management_port}{path}")).text


async def both_are_ready(service: Service) -> bool:
    each = json.loads(await page(service, "/health/ready"))["processes"]
    return len(each) == 2 and all(one.get("ready") for one in each.values())


async def owned(service: Service) -> dict[str, float]:
    """Return how many partitions each process owns."""
    for family in text_string_to_metric_families(await page(service, "/metrics")):
        if family.name == "headrace_claims_held":
            return {sample.labels["process"]: sample.value for sample in family.samples}
    return {}


async def is_divided(service: Service) -> bool:
    return sorted((await owned(service)).values()) == [PARTITIONS / 2, PARTITIONS / 2]


async def applied(service: Service, name: str) -> int:
    async with http_client() as client:
        answer = await client.get(f"{service.url}/state/things/seen/{name}")
    return int(answer.json()["count"]) if answer.status_code == 200 else 0


async def test_processes_share_port_and_partitions_and_stop_together(service: Service) -> None:
    await until(lambda: is_divided(service), "each process owns half of the partitions", 60)
    names = [f"name-{number}" for number in range(20)]
    for name in names:
        await publish(service, name)

    async def are_applied() -> bool:
        return [await applied(service, name) for name in names] == [1] * len(names)

    await until(are_applied, "every event has its effect")
    assert await service.leave() == 0, service.output
    assert service.output.count('"event": "drained", "outcome": "clean"') == 2


async def test_process_that_dies_is_replaced(service: Service) -> None:
    victim = min(service.children)
    os.kill(victim, signal.SIGKILL)
    await until(lambda: victim not in service.children and len(service.children) == 2, "another one is there", 60)
    await until(lambda: both_are_ready(service), "both are ready again", 60)
    await publish(service, "after")

    async def is_applied() -> bool:
        return await applied(service, "after") == 1

    await until(is_applied, "the event has its effect", 60)
    assert "another one takes its place" in service.output


async def test_processes_end_when_their_parent_was_killed(service: Service) -> None:
    children = service.children
    await service.kill()
    await until(lambda: not any(map(is_alive, children)), "both have drained", 60)
    assert service.output.count('"event": "drained"') == 2


async def test_second_signal_ends_all_processes_at_once(service: Service, tmp_path: Path) -> None:
    await publish(service, "endless")
    await until((tmp_path / "began").exists, "the handler has begun")
    os.kill(service.pid, signal.SIGTERM)
    await until(lambda: len(service.children) == 1, "the other one has drained", 60)
    os.kill(service.pid, signal.SIGTERM)
    assert await service.ended(10) == 1


async def test_mistake_is_told_once(tmp_path: Path, settings: dict[str, str]) -> None:
    said = await headrace(tmp_path, "run", "nowhere:app", "--workers", "3", "--port", "0", settings=settings)
    assert (said.code, said.err.count("there is no module 'nowhere'")) == (1, 1), said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("missing", ["HEADRACE_LOG", "HEADRACE_DATABASE"])
async def test_what_belongs_to_one_process_is_refused(tmp_path: Path, settings: dict[str, str], missing: str) -> None:
    del settings[missing]
    said = await headrace(tmp_path, "run", "small:app", "--workers", "2", settings=settings)
    assert said.code == 1
    assert f"--workers 2 needs a {'log' if missing == 'HEADRACE_LOG' else 'Postgres'} that processes share" in said.err
    assert len(said.err.strip().splitlines()) == 1
