from __future__ import annotations

import asyncio
from types import SimpleNamespace

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException

from headrace.telemetry.health import Health
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.routes import telemetry_routes


def refuse() -> None:
    raise HTTPException(401)


@pytest.fixture
def health() -> Health:
    return Health()


def ask(health: Health, path: str, *, guarded: bool = False) -> httpx.Response:
    app = FastAPI()
    app.include_router(telemetry_routes([Depends(refuse)] if guarded else []))
    runtime = SimpleNamespace(health=health, metrics=Metrics(version="1", role="all"))
    app.state.headrace = SimpleNamespace(runtime=runtime)

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            return await client.get(path)

    return asyncio.run(request())


def test_health_and_metrics_are_on_the_applications_port_too(health: Health) -> None:
    health.started = True
    assert ask(health, "/health/live").json() == {"live": True, "reasons": []}
    assert ask(health, "/health/ready").json() == {"ready": True, "reasons": []}
    metrics = ask(health, "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "headrace_build_info" in metrics.text


def test_the_startup_probe_waits_for_the_start(health: Health) -> None:
    assert ask(health, "/health/live").status_code == 200
    assert ask(health, "/health/live?startup").status_code == 503
    assert ask(health, "/health/ready").json() == {"ready": False, "reasons": ["starting"]}


def test_a_guard_protects_metrics_but_never_probes(health: Health) -> None:
    assert ask(health, "/metrics", guarded=True).status_code == 401
    assert ask(health, "/health/live", guarded=True).status_code == 200
