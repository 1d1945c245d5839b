"""`headrace explain`: what became of an event, as a person reads it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.cli.conftest import Start
from tests.support.command import headrace
from tests.support.waiting import until
from tests.support.web import http_client

MODULE = """
from fastapi import FastAPI
from headrace import DeadLetter, Event, Headrace, Step

events = Headrace("mailroom")
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)

class Written(Event, type="written", topic="letters", key="to"):
    to: str

async def stamp() -> str:
    return "stamped"

@events.subscription("mails").effect(Written)
async def mail(event: Written, step: Step) -> None:
    await step("stamp", stamp)
    if event.to == "nowhere":
        raise DeadLetter("no such \\x1b[2J street")
"""


async def test_explain_tells_where_an_effect_stands(start: Start, tmp_path: Path) -> None:
    (tmp_path / "mailroom_app.py").write_text(MODULE)
    service = await start({}, app="mailroom_app:app")
    async with http_client() as client:
        for to in ("ada", "nowhere"):
            headers = {"Idempotency-Key": f"to-{to}"}
            answer = await client.post(f"{service.url}/events/written", json={"to": to}, headers=headers)
            assert answer.status_code == 202, answer.text

    async def stage(event_id: str) -> str | None:
        said = await headrace(tmp_path, "explain", event_id, "--json", "--url", service.url)
        (fate,) = json.loads(said.out)["fates"]
        return fate["effect"] and str(fate["effect"]["stage"])

    async def are_over() -> bool:
        return [await stage(f"to-{to}") for to in ("ada", "nowhere")] == ["ended", "failed"]

    await until(are_over, "both effects are over", 60)
    ended = await headrace(tmp_path, "explain", "to-ada", "--url", service.url)
    assert ended.code == 0 and ended.out.startswith("mails: applied letters/"), ended.out
    assert "effect mail (ended): it has ended." in ended.out
    failed = await headrace(tmp_path, "explain", "to-nowhere", "--url", service.url)
    assert "mails: dead letter letters/" in failed.out and "no such \\x1b[2J street" in failed.out
    assert "effect mail (failed): it was given up on" in failed.out and "Its answered steps: stamp." in failed.out
    unknown = await headrace(tmp_path, "explain", "to-bob", "--url", service.url)
    assert unknown.code == 1 and "mails: unknown" in unknown.out


async def test_explain_finds_an_event_that_is_called_stream(start: Start, folder: Path) -> None:
    service = await start({"HEADRACE_LOG": "memory"})
    async with http_client() as client:
        headers = {"Idempotency-Key": "stream"}
        answer = await client.post(f"{service.url}/events/thing.made", json={"name": "one"}, headers=headers)
        assert answer.status_code == 202, answer.text
    said = await headrace(folder, "explain", "stream", "--url", service.url)
    assert said.code == 0 and said.out.startswith("things: "), said.out + said.err
