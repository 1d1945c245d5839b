"""A partition of which too much is parked takes no further events, says so, and goes on when there is less."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.log.memory import MemoryLog
from tests.support.platform import (
    client,
    has_pages,
    lag,
    notebook,
    noted,
    publish,
    sample,
    settings_for,
    until_settled,
    watched,
)
from tests.support.waiting import until


@pytest.mark.parametrize("limit", [{"parked_keys": 2}, {"parked_events": 2}], ids=["keys", "events"])
async def test_full_partition_waits_and_an_operator_releases_it(
    database_url: str, topic_name: str, limit: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    broken = {"a", "b"}

    def fail(event: Any) -> None:
        if event.page in broken:
            raise KeyError(event.page)

    settings = settings_for(
        database_url, partitions=1, retry_attempts=1_000, retry_first_seconds=600, retry_max_seconds=600, **limit
    )
    platform = notebook(settings, topic_name, fail)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as web:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "b", 1))
        await until(lambda: sample(runtime, "lane_full_partitions") == 1, "the partition is full")
        await publish(runtime, noted(topic_name, "c", 1))
        partition = (await web.get("/subscriptions/notes")).json()["partitions"][0]
        assert (partition["full"], partition["parked_keys"]) == (True, 2)
        await until(lambda: any("too much is parked" in str(each.msg) for each in caplog.records), "the log says so")
        assert await lag(runtime, "notes") == 1
        broken.clear()
        for asked in ({"key": "a"}, {"error_type": "KeyError"}):
            assert (await web.post("/subscriptions/notes/lanes/retry", params=asked)).json()["lanes"] >= 1
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1], "b": [1], "c": [1]})
        assert not (await web.get("/subscriptions/notes")).json()["partitions"][0]["full"]
        await until(lambda: sample(runtime, "lane_full_partitions") == 0, "the partition is not full any more")
