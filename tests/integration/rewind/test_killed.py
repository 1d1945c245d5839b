"""A rewind whose process is killed leaves a paused subscription that says why, and the next one takes it up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.loading import find_platform, load_app
from tests.support.auditing import assert_promises_hold
from tests.support.command import Said, headrace
from tests.support.kafka import KafkaServer
from tests.support.platform import client, noted, publish, running, settings_for, states, until_settled, value
from tests.support.waiting import until

APP = """
import time
from pathlib import Path

from fastapi import FastAPI
from headrace import Event, Headrace, State
from pydantic import BaseModel

events = Headrace("small")
FOLDER = Path({folder!r})

class Noted(Event, type="noted", topic="{topic}", key="page"):
    page: str
    number: int

class Notes(BaseModel):
    numbers: list[int] = []

@events.subscription("notes").on(Noted)
def note(event: Noted, notes: State[Notes]) -> None:
    while (FOLDER / "held").exists():
        (FOLDER / "entered").touch()
        time.sleep(0.05)
    notes.numbers.append(event.number)

app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
"""


async def test_the_next_rewind_takes_up_what_a_killed_one_has_left(
    database_url: str, kafka: KafkaServer, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killed.py").write_text(APP.format(topic=topic_name, folder=str(tmp_path)))
    monkeypatch.syspath_prepend(tmp_path)
    platform = find_platform(load_app("killed:app"))
    monkeypatch.setattr(platform, "_settings", settings_for(database_url, kafka.url, partitions=1))
    settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": database_url}

    async def rewound() -> Said:
        words = ("rewind", "killed:app", "notes", "--to-offset", "1", "--partition", "0", "--yes")
        return await headrace(tmp_path, *words, settings=settings)

    async with running(platform) as runtime, client(platform) as web:

        async def shown() -> dict[str, object]:
            return dict((await web.get("/subscriptions/notes")).json())

        await publish(runtime, *(noted(topic_name, "a", number, id=f"a-{number}") for number in (1, 2, 3)))
        await until_settled(runtime, "notes")
        assert (await shown())["rewind"] is None
        (tmp_path / "held").touch()
        first = asyncio.create_task(rewound())
        await until((tmp_path / "entered").exists, "the states of then are being made", 60)
        assert (await shown())["rewind"]["running"]  # type: ignore[index]
        second = await rewound()
        assert (second.code, "is being rewound by somebody else" in second.err) == (1, True)
        first.cancel()  # which kills the process
        with pytest.raises(asyncio.CancelledError):
            await first
        (tmp_path / "held").unlink()
        await until(lambda: is_cut_off(shown), "the session of the dead process is gone")
        assert (await shown())["paused"]
        doctor = await headrace(tmp_path, "doctor", "killed:app", settings=settings | {"HEADRACE_MANAGEMENT_PORT": "0"})
        assert "paused by a rewind that" in doctor.out
        assert "was cut off, so that nothing was changed" in " ".join(doctor.out.split())
        assert await states(runtime, "notes", "notes") == {"a": {"numbers": [1, 2, 3]}}
        assert await value(runtime, "select count(*) from headrace.claim_move") == 0

        third = await rewound()
        assert third.code == 0, third.err
        assert not (await shown())["paused"]
        await until_settled(runtime, "notes")
        assert await states(runtime, "notes", "notes") == {"a": {"numbers": [1, 2, 3]}}
        assert await value(runtime, "select count(*) from headrace.claim_move") == 1
    await assert_promises_hold(database_url)


async def is_cut_off(shown: object) -> bool:
    rewind = (await shown())["rewind"]  # type: ignore[operator]
    return rewind is not None and not rewind["running"]
