"""`headrace effects`, on the database and over HTTP: which calls wait, why, and a retry without waiting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headrace import Event, Headrace, Step
from headrace.log.memory import MemoryLog
from tests.support.command import headrace
from tests.support.platform import publish, record, settings_for, watched
from tests.support.routes import application, caller
from tests.support.waiting import until


class Asked(Event, type="asked", topic="asked", key="key"):
    key: str


async def test_failed_calls_are_listed_and_retried(tmp_path: Path, database_url: str) -> None:
    """Those of `held` wait for an operator, and are made again when one asks for it."""
    fails, answered = [True], set[str]()
    platform = Headrace("shop", settings_for(database_url, retry_first_seconds=3_600, retry_max_seconds=3_600))

    @platform.subscription("asking").effect(Asked, attempts=1, at_end="hold")
    async def ask(event: Asked, step: Step) -> None:
        if fails[0] and event.key != "good":
            raise ConnectionError("no \x1b[2J ink")
        answered.add(event.key)

    settings = {"HEADRACE_DATABASE": database_url}
    async with watched(platform, MemoryLog()) as runtime, caller(application(platform)) as client:
        keys = ("held", "also", "good")
        await publish(runtime, *(record("asked", "asked", {"key": key}, key=key, id=key) for key in keys))

        async def listed(*options: str) -> list[dict[str, Any]]:
            said = await headrace(tmp_path, "effects", "list", "asking", "--json", *options, settings=settings)
            assert said.code == 0, said.err
            return list(json.loads(said.out))

        async def are_two_held() -> bool:
            return [each["held"] for each in await listed()] == [True, True]

        await until(are_two_held, "two are held")
        (held,) = await listed("--key", "held", "--failed")
        assert (held["subscription"], held["type"], held["event"]) == ("shop.asking", "asked", "held")
        shown = await headrace(tmp_path, "effects", "list", "shop.asking", settings=settings)
        assert "no \\x1b[2J ink" in shown.out and "\x1b" not in shown.out
        over_http = (await client.get("/subscriptions/asking/effects", params={"failed": True})).json()["effects"]
        assert [(each["subscription"], each["held"]) for each in over_http] == [("asking", True)] * 2
        assert (await client.get("/subscriptions/nobody/effects")).status_code == 404

        fails[0] = False
        retried = await headrace(tmp_path, "effects", "retry", "asking", "--key", "held", settings=settings)
        assert (retried.code, retried.out) == (0, "1 call to be made by the owner\n"), retried.err
        await until(lambda: answered == {"good", "held"}, "it is made")
        neither = await headrace(tmp_path, "effects", "retry", "asking", settings=settings)
        assert neither.code == 2 and "--all" in neither.err
        assert (await client.post("/subscriptions/asking/effects/retry")).json() == {"name": "asking", "effects": 1}
        await until(lambda: answered == set(keys), "all are made")
