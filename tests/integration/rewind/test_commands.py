"""`headrace rewind` and its route say what they are going to do before they do it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.loading import find_platform, load_app
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord
from tests.support.auditing import assert_promises_hold
from tests.support.command import Said, headrace
from tests.support.kafka import KafkaServer
from tests.support.platform import client, fetch, publish, record, running, settings_for, states, until_settled, value

APP = """
from fastapi import FastAPI
from headrace import Event, Headrace, State
from pydantic import BaseModel

events = Headrace("small")

class Noted(Event, type="noted", topic="{topic}", key="page"):
    page: str
    number: int

class Notes(BaseModel):
    numbers: list[int] = []

@events.subscription("notes").on(Noted)
def note(event: Noted, notes: State[Notes]) -> None:
    notes.numbers.append(event.number)

app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
"""


async def test_the_command_plans_asks_and_tells_who_did_it(
    database_url: str, kafka: KafkaServer, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rewound.py").write_text(APP.format(topic=topic_name))
    monkeypatch.syspath_prepend(tmp_path)
    platform = find_platform(load_app("rewound:app"))
    monkeypatch.setattr(platform, "_settings", settings_for(database_url, kafka.url))
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url}

    async def rewound(*words: str, answer: str = "") -> Said:
        return await headrace(tmp_path, "rewind", "rewound:app", *words, settings=settings, answer=answer)

    async with running(platform) as runtime:
        await publish(runtime, *(noted(topic_name, page, number) for number in (1, 2, 3) for page in "abc"))
        await until_settled(runtime, "notes")
        planned = await rewound("notes", "--to-beginning", "--plan")
        assert planned.code == 0, planned.err
        assert "9 offsets are applied again\n3 states are deleted, and made anew by what is applied\n" in planned.out
        refused = await rewound("notes", "--to-beginning", answer="n\n")
        assert (refused.code, "Rewind small.notes?" in refused.err) == (1, True)
        assert await value(runtime, "select count(*) from headrace.claim_move") == 0
        done = await rewound("notes", "--to-time", "1h", "--why", "a bug", answer="y\n")
        assert done.out.endswith("small.notes is rewound\n"), done.err
        await until_settled(runtime, "notes")
        expected = {page: {"numbers": [1, 2, 3]} for page in "abc"}
        assert await states(runtime, "notes", "notes") == expected
        number = str(partition_for(b"a", 3))
        said = json.loads((await rewound("notes", "--to-beginning", "--partition", number, "--yes", "--json")).out)
        assert (said["done"], said["states"], said["paused"]) == (True, "reset", False)
        await until_settled(runtime, "notes")
        assert await states(runtime, "notes", "notes") == expected
        history = (await rewound("notes", "--history")).out
        assert history.count("rewind") == await value(runtime, "select count(*) from headrace.claim_move")
        assert "a bug" in history and "@" in history

        nobody = await rewound("others", "--to-beginning")
        assert "rewound:app declares no subscription 'others'; it declares: notes." in nobody.err
        nowhere = await rewound("notes")
        assert nowhere.code == 2 and "one of --to-beginning, --to-offset and" in nowhere.err
    await assert_promises_hold(database_url)


async def test_the_route_changes_nothing_before_it_is_confirmed(
    database_url: str, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works where no command can: on the memory log, or an embedded database that the service holds."""
    (tmp_path / "routed.py").write_text(APP.format(topic=topic_name))
    monkeypatch.syspath_prepend(tmp_path)
    platform = find_platform(load_app("routed:app"))
    monkeypatch.setattr(platform, "_settings", settings_for(database_url, "embedded", partitions=1))
    path = "/subscriptions/notes/rewind"
    async with running(platform) as runtime, client(platform) as http:
        await publish(runtime, *(noted(topic_name, "a", number) for number in (1, 2, 3)))
        await until_settled(runtime, "notes")
        answer = await http.post(path, json={"offset": 1})
        assert answer.status_code == 200
        assert answer.json() == {
            "done": False,
            "subscription": "small.notes",
            "partitions": [{"topic": topic_name, "partition": 0, "from": 3, "to": 1}],
            "events": 2,
            "states": "remade",
            "reads": 3,
            "changed_by_hand": 0,
            "effects": False,
            "kept": {"parked": 0, "dead_letters": 0, "discarded": 0, "edited": 0},
        }
        assert await fetch(runtime, "select from headrace.claim_move") == []
        done = (await http.post(path, json={"offset": 1, "why": "a bug", "confirmed": True})).json()
        assert (done["done"], done["changed"]["keys"], done["paused"]) == (True, 1, False)
        await until_settled(runtime, "notes")
        assert await states(runtime, "notes", "notes") == {"a": {"numbers": [1, 2, 3]}}
        (move,) = (await http.get("/subscriptions/notes/moves")).json()["moves"]
        assert (move["from_offset"], move["next_offset"], move["why"]) == (3, 1, "a bug")
        assert move["changed"]["keys"] == 1

        nowhere = await http.post(path, json={"offset": 1, "beginning": True})
        assert (nowhere.status_code, nowhere.json()["detail"]) == (422, "give one of beginning, offset and time.")
        ahead = await http.post(path, json={"offset": 3, "confirmed": True})
        assert ahead.status_code == 409 and "has applied nothing behind that place" in ahead.json()["detail"]
    await assert_promises_hold(database_url)


def noted(topic: str, page: str, number: int) -> NewRecord:
    return record(topic, "noted", {"page": page, "number": number}, key=page, id=f"{page}-{number}")
