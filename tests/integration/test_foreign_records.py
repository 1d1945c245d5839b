"""Records of a foreign producer, without a decoder: a dead letter that says what to declare, under the record's key."""

from __future__ import annotations

from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from tests.support.platform import client, notebook, publish, running, settings_for, until_settled


async def test_plain_json_is_a_dead_letter_with_its_key(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, NewRecord(topic_name, b"sensor-7", b'{"celsius": 21.5}', []))
        await until_settled(runtime, "notes")
        (letter,) = (await http.get("/dead-letters")).json()["dead_letters"]
        assert (letter["reason"], letter["key"]) == ("decode", "sensor-7")
        assert "no CloudEvents headers and no specversion" in letter["error"]
        assert "@events.decoder" in letter["error"]
