"""What the page about rewinds shows is what happens: its service, its commands and its request."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from headrace.loading import find_platform, load_app
from headrace.log.ports import NewRecord
from tests.support.auditing import assert_promises_hold
from tests.support.command import headrace
from tests.support.kafka import KafkaServer
from tests.support.pages import blocks, python_files, read
from tests.support.platform import client, publish, record, running, settings_for, states, until_settled

PAGE = "docs/guide/rewind.md"


def paid(topic: str, customer: str, total: int) -> NewRecord:
    return record(topic, "order.paid", {"customer": customer, "total": total}, key=customer)


async def test_the_commands_of_the_page_do_what_it_says(
    database_url: str, kafka: KafkaServer, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "points.py").write_text(python_files(PAGE)["points"].replace('"orders"', f'"{topic_name}"'))
    monkeypatch.syspath_prepend(tmp_path)
    platform = find_platform(load_app("points:app"))
    monkeypatch.setattr(platform, "_settings", settings_for(database_url, kafka.url, partitions=2))
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url}
    dry, go_back, request = [block.replace("\\\n", "") for block in blocks(read(PAGE), "bash")]
    async with running(platform) as runtime:
        await publish(runtime, *(paid(topic_name, each, total) for total in (25, 40) for each in ("ada", "bob", "eve")))
        await until_settled(runtime, "points")
        assert runtime.pool is not None
        await runtime.pool.execute("update headrace.state set data = '{\"points\": 12}' where key = 'ada'")
        words = [re.sub(r"^2026-05-01T12:00$", "1h", word) for word in shlex.split(dry)[1:]]
        said = await headrace(tmp_path, *words, settings=settings)
        assert (said.code, said.out.splitlines()) == (
            3,
            [
                "points.points: 6 events of 3 keys ran, 6 offsets are in question",
                "1 state would be different:",
                '    points ada: {"points": 12} -> {"points": 6}',
            ],
        ), said.err
        words = [re.sub(r"^2026-05-01T12:00$", "1h", word) for word in shlex.split(go_back)[1:]]
        said = await headrace(tmp_path, *words, settings=settings, answer="y\n")
        assert (said.code, said.out.splitlines()[-1].strip()) == (0, "points.points is rewound"), said.err
        assert "Rewind points.points? [y/N]:" in said.err
        await until_settled(runtime, "points")
        assert await states(runtime, "points", "points") == {name: {"points": 6} for name in ("ada", "bob", "eve")}

        async with client(platform) as http:
            method, _, body = request.partition("-d ")
            path = shlex.split(method)[2].removeprefix("localhost:8000")
            answer = await http.post(path, json=json.loads(shlex.split(body)[0]) | {"time": "2000-01-01T00:00:00Z"})
            assert (answer.status_code, answer.json()["done"]) == (200, True)
        await until_settled(runtime, "points")
        assert await states(runtime, "points", "points") == {name: {"points": 6} for name in ("ada", "bob", "eve")}
    await assert_promises_hold(database_url)
