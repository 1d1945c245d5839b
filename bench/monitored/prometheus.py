"""A Prometheus in a folder of its own, with the rules that the chart renders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.charts.helm import NAMESPACE, rules, tool
from tests.support.ports import free_ports
from tests.support.waiting import until

SCRAPE_SECONDS = 1


class Series(NamedTuple):
    """One line of a panel: its labels, and (seconds since the epoch, value) in order."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Prometheus:
    """Answers queries over a stretch of time."""

    def __init__(self, port: int) -> None:
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)

    async def is_ready(self) -> bool:
        """True when it answers."""
        try:
            return (await self._client.get("/-/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    async def ask(self, query: str, since: float, until_: float, step: float = SCRAPE_SECONDS) -> list[Series]:
        """Return the series of a query. Raises: RuntimeError (Prometheus does not understand it)."""
        answer = await self._client.get(
            "/api/v1/query_range", params={"query": query, "start": since, "end": until_, "step": step}
        )
        told = answer.json()
        if told["status"] != "success":
            raise RuntimeError(f"{query}: {told['error']}")
        return [
            Series(each["metric"], [(float(at), float(value)) for at, value in each["values"]])
            for each in told["data"]["result"]
        ]

    async def alerts(self) -> set[str]:
        """Return the names of all alerts that wait or fire."""
        return {each["labels"]["alertname"] for each in (await self._get("/api/v1/alerts"))["alerts"]}

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self._client.get(path)
        return dict(answer.json()["data"])

    async def close(self) -> None:
        """Let the connection go."""
        await self._client.aclose()


@asynccontextmanager
async def prometheus(folder: Path, targets: Mapping[str, int]) -> AsyncIterator[Prometheus]:
    """Start a Prometheus that scrapes these pods, by name and port; it is ended afterwards."""
    port = free_ports(1)[0]
    (folder / "rules.json").write_text(json.dumps(rules()))
    scrapes = [
        {"targets": [f"127.0.0.1:{number}"], "labels": {"namespace": NAMESPACE, "pod": name}}
        for name, number in targets.items()
    ]
    (folder / "prometheus.json").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "2s"},
                "rule_files": ["rules.json"],
                "scrape_configs": [{"job_name": "headrace", "honor_labels": True, "static_configs": scrapes}],
            }
        )
    )
    process = await asyncio.create_subprocess_exec(
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    server = Prometheus(port)
    try:
        await until(server.is_ready, "Prometheus is ready")
        yield server
    finally:
        await server.close()
        process.terminate()
        await process.wait()
