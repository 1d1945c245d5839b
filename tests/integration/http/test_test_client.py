"""An application with its platform in it runs under Starlette's TestClient, without keys."""

from __future__ import annotations

import asyncio
import warnings

from fastapi import FastAPI

from headrace import Event, Headrace
from headrace.http.addresses import announced
from tests.support.platform import settings_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette prefers a successor of httpx that is not among the dependencies
    from starlette.testclient import TestClient


def service(database_url: str, topic: str) -> FastAPI:
    """An application with its platform under a prefix."""
    events = Headrace("tested", settings_for(database_url))

    class Thing(Event, type="thing.made", topic=topic, key="name"):
        name: str

    @events.subscription("things").on(Thing)
    def take(event: Thing) -> None:
        """Take it."""

    app = FastAPI(lifespan=events.lifespan)
    app.include_router(events.router, prefix="/platform")
    return app


async def test_the_test_client_is_served_without_keys(database_url: str, topic_name: str) -> None:
    app = service(database_url, topic_name)

    def work() -> None:
        with TestClient(app) as client:
            assert client.post("/platform/events/thing.made", json={"name": "one"}).status_code == 202
            assert client.get("/platform/subscriptions").status_code == 200
            for place in announced(app, "http://testserver").values():
                assert client.get(place).status_code == 200, place
            strange = client.get("/platform/metrics", headers={"Host": "evil.example"})
            assert strange.status_code == 403

    await asyncio.to_thread(work)
