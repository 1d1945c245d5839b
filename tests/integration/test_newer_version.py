"""An event of a newer version than this service knows is refused over HTTP, whatever its data look like."""

from __future__ import annotations

from headrace.log.memory import MemoryLog
from tests.support.platform import client, notebook, running, settings_for


async def test_event_of_a_newer_version_is_refused(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    event = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "noted", "data": {"page": "a", "number": 1}}
    async with running(platform, MemoryLog()), client(platform) as http:
        for dataschema, status in (("noted/v1", 202), ("noted/v2", 422)):
            content_type = {"content-type": "application/cloudevents+json"}
            answer = await http.post("/events", json=event | {"dataschema": dataschema}, headers=content_type)
            assert answer.status_code == status
        assert "has version 2 and this service knows version 1" in answer.json()["detail"]
