"""`headrace dead-letters`, on the database and through the API of a running platform."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import msgspec
import pytest

from tests.support.command import Said, headrace
from tests.support.ports import free_ports
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

Start = Callable[..., Awaitable[Service]]

BURY = """
insert into headrace.dead_letter (subscription, topic, partition, "offset", "timestamp", key, record_key, value,
                                  headers, source, event_id, type, reason, error)
values ($1, 'things', 0, $2, 1700000000000, $3, $3, $4, $5, '/test', $6, 'thing.made', $7, $8) returning id::text
"""


async def bury(address: str, count: int, *, subscription: str = "things", reason: str = "gave_up") -> list[str]:
    """Write dead letters as a worker does; return their ids."""
    connection = await asyncpg.connect(address)
    headers = msgspec.msgpack.encode([("ce_id", b"1"), ("odd", b"\xff\x1b[31m")])
    ids = [
        await connection.fetchval(
            BURY,
            subscription,
            number,
            b"ada",
            b'{"name": "\x1b]0;owned\x07"}',
            headers,
            f"e-{number}",
            reason,
            "no\x1b[2J ink",
        )
        for number in range(count)
    ]
    await connection.close()
    return ids


async def decisions(address: str) -> dict[str, str | None]:
    connection = await asyncpg.connect(address)
    rows = await connection.fetch("select id::text as id, decision from headrace.dead_letter")
    await connection.close()
    return {row["id"]: row["decision"] for row in rows}


async def test_dead_letters_are_decided_in_the_database(folder: Path, database_url: str) -> None:
    """They are listed, shown, replayed and skipped with no platform running."""
    settings = {"HEADRACE_DATABASE": database_url}
    first, second, third = await bury(database_url, 3)
    (other,) = await bury(database_url, 1, subscription="others", reason="decode")

    listed = await headrace(folder, "dead-letters", "list", settings=settings)
    assert listed.code == 0, listed.err
    assert len(listed.out.splitlines()) == 5
    assert "\x1b" not in listed.out and "no\\x1b[2J ink" in listed.out
    narrowed = await headrace(
        folder, "dead-letters", "list", "--subscription", "others", "--reason", "decode", "--json", settings=settings
    )
    assert [letter["id"] for letter in json.loads(narrowed.out)] == [other]
    few = await headrace(folder, "dead-letters", "list", "--limit", "2", settings=settings)
    assert len(few.out.splitlines()) == 3 and "there are more than 2" in few.err

    shown = await headrace(folder, "dead-letters", "show", first, settings=settings)
    assert shown.code == 0, shown.err
    assert "\x1b" not in shown.out and "\x07" not in shown.out
    assert '{"name": "\\x1b]0;owned\\x07"}' in shown.out
    assert "b'\\xff\\x1b[31m'" in shown.out
    assert "e-0 of /test" in shown.out

    doubted = await headrace(folder, "dead-letters", "discard", first, settings=settings, answer="n\n")
    assert doubted.code == 1
    assert "Discard 1 dead letter?" in doubted.err
    assert set((await decisions(database_url)).values()) == {None}
    discarded = await headrace(folder, "dead-letters", "discard", first, settings=settings, answer="y\n")
    assert (discarded.code, discarded.out.strip()) == (0, "1 dead letter discarded")
    again = await headrace(folder, "dead-letters", "replay", first, second, "--yes", settings=settings)
    assert again.code == 1
    assert again.out == "1 dead letter to be replayed by the owner\n"
    assert f"the dead letter {first} was discarded at " in again.err

    narrow = ["dead-letters", "replay", "--all-open", "--subscription", "things", "--yes"]
    rest = await headrace(folder, *narrow, settings=settings)
    assert (rest.code, rest.out) == (0, "1 dead letter to be replayed by the owner\n")
    assert await decisions(database_url) == {first: "discard", second: "replay", third: "replay", other: None}
    nothing = await headrace(folder, *narrow, settings=settings)
    assert (nothing.code, nothing.out) == (0, "there is no open dead letter\n")
    every = await headrace(folder, "dead-letters", "list", "--all", settings=settings)
    assert len(every.out.splitlines()) == 5 and "discard" in every.out


async def test_more_dead_letters_than_a_page_are_decided(folder: Path, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        """
        insert into headrace.dead_letter (subscription, topic, partition, "offset", "timestamp", headers, reason, error)
        select 'things', 'things', 0, n, 0, '\\x90', 'decode', 'x' from generate_series(1, 1201) as n
        """
    )
    await connection.close()
    said = await headrace(
        folder, "dead-letters", "discard", "--all-open", "--yes", settings={"HEADRACE_DATABASE": database_url}
    )
    assert (said.code, said.out) == (0, "1201 dead letters discarded\n"), said.err


async def test_dead_letters_are_counted_by_error(folder: Path, database_url: str) -> None:
    await bury(database_url, 3)
    await bury(database_url, 1, reason="decode")
    settings = {"HEADRACE_DATABASE": database_url}
    said = await headrace(folder, "dead-letters", "groups", settings=settings)
    assert said.code == 0, said.err
    head, first, second = said.out.splitlines()
    assert head.split()[:3] == ["LETTERS", "SUBSCRIPTION", "REASON"]
    assert first.split()[:3] == ["3", "things", "gave_up"] and "no\\x1b[2J ink" in first
    assert second.split()[:3] == ["1", "things", "decode"]
    narrowed = await headrace(folder, "dead-letters", "groups", "--since", "1h", "--json", settings=settings)
    assert json.loads(narrowed.out)["total"] == 4
    nothing = await headrace(folder, "dead-letters", "groups", "--until", "1h", settings=settings)
    assert nothing.out == "there is no open dead letter\n"


async def test_dead_letter_is_edited_in_the_database(folder: Path, database_url: str) -> None:
    """The application declares the event type, by which the edit is checked."""
    (letter,) = await bury(database_url, 1, subscription="small.things")
    connection = await asyncpg.connect(database_url)
    headers = {"ce_specversion": "1.0", "ce_id": "e-0", "ce_source": "/test", "ce_type": "thing.made"}
    packed = msgspec.msgpack.encode([(name, value.encode()) for name, value in headers.items()])
    await connection.execute("update headrace.dead_letter set headers = $1, key = null, record_key = null", packed)
    await connection.close()
    settings = {"HEADRACE_DATABASE": database_url}

    async def edit(data: str, *more: str) -> Said:
        return await headrace(
            folder, "dead-letters", "edit", letter, "--data", "-", *more, settings=settings, answer=data
        )

    app = ("--app", "small:app", "--why", "a name")
    unnamed = await edit('{"name": "oar"}')
    assert unnamed.code == 1 and "--app MODULE:APP" in unnamed.err
    refused = await edit('{"name": 7}', *app)
    assert (refused.code, refused.err.startswith("thing.made: name")) == (1, True), refused.err
    edited = await edit('{"name": "oar"}', *app)
    assert edited.code == 0, edited.err
    (folder / "pen").write_text("#!/bin/sh\nsed -i s/oar/paddle/ $1\n")
    (folder / "pen").chmod(0o755)
    with_editor = settings | {"EDITOR": "./pen"}
    again = await headrace(folder, "dead-letters", "edit", letter, "--app", "small:app", settings=with_editor)
    assert again.code == 0, again.err
    unchanged = await headrace(folder, "dead-letters", "edit", letter, "--app", "small:app", settings=with_editor)
    assert unchanged.code == 1 and "nothing was changed" in unchanged.err
    shown = await headrace(folder, "dead-letters", "show", letter, settings=settings)
    assert '"name": "paddle"' in shown.out and ": a name" in shown.out and "edit by " in shown.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay"],
        ["discard", "00000000-0000-0000-0000-000000000000", "--all-open"],
        ["replay", "00000000-0000-0000-0000-000000000000", "--subscription", "things"],
        ["replay", "00000000-0000-0000-0000-000000000000", "--error-type", "KeyError"],
        ["list", "--since", "yesterday"],
        ["replay", "not-an-id"],
        ["list", "--api-key-file", "key"],
        ["list", "--limit", "0"],
    ],
)
async def test_wrong_command_line_is_refused_with_the_usage(folder: Path, arguments: list[str]) -> None:
    said = await headrace(folder, "dead-letters", *arguments)
    assert said.code == 2
    assert said.err.startswith("Usage: headrace dead-letters")
    assert "Traceback" not in said.err


async def test_dead_letter_that_does_not_exist_is_named(folder: Path, database_url: str) -> None:
    unknown = "00000000-0000-0000-0000-000000000000"
    said = await headrace(folder, "dead-letters", "show", unknown, settings={"HEADRACE_DATABASE": database_url})
    assert (said.code, said.err) == (1, f"headrace: there is no dead letter {unknown}.\n")


async def test_dead_letters_of_a_running_platform_go_over_http(start: Start, folder: Path) -> None:
    """A dead letter of a running platform is replayed over HTTP."""
    keys = folder / "keys.json"
    keys.write_text(json.dumps([{"name": "ops", "key": "oar", "scopes": ["publish", "read", "operate"]}]))
    (folder / "key").write_text("oar\n")
    (folder / "wrong").write_text("paddle\n")
    service = await start({"HEADRACE_ENGINE_RETRY_ATTEMPTS": "1", "HEADRACE_API_KEYS_FILE": str(keys)})
    async with http_client(headers={"Authorization": "Bearer oar"}) as client:
        for _ in range(2):
            answer = await client.post(f"{service.url}/events/thing.made", json={"name": "picky"})
            assert answer.status_code == 202, answer.text
    api = ["--url", service.url, "--api-key-file", "key"]

    async def listed(*arguments: str) -> list[dict[str, object]]:
        said = await headrace(folder, "dead-letters", "list", "--json", *arguments, *api)
        assert said.code == 0, said.err
        return list(json.loads(said.out))

    async def both_given_up() -> bool:
        return len(await listed()) == 2

    await until(both_given_up, "both events are dead letters", 60)
    stranger = await headrace(folder, "dead-letters", "list", "--url", service.url)
    assert stranger.code == 1 and "--api-key-file" in stranger.err
    wrong = await headrace(folder, "dead-letters", "list", "--url", service.url, "--api-key-file", "wrong")
    assert wrong.code == 1 and "the API key is not known" in wrong.err and "paddle" not in wrong.err
    (letter, other) = await listed()
    shown = await headrace(folder, "dead-letters", "show", str(letter["id"]), *api)
    assert "not \\x1b[31myet" in shown.out

    (folder / "mended").touch()
    replayed = await headrace(folder, "dead-letters", "replay", str(letter["id"]), "--yes", *api)
    assert (replayed.code, replayed.out) == (0, "1 dead letter to be replayed by the owner\n"), replayed.err
    again = await headrace(folder, "dead-letters", "replay", str(letter["id"]), "--yes", *api)
    assert again.code == 1 and "was replayed at" in again.err
    discarded = await headrace(folder, "dead-letters", "discard", "--all-open", "--yes", *api)
    assert discarded.out == "1 dead letter discarded\n"

    async def count() -> int:
        async with http_client(headers={"Authorization": "Bearer oar"}) as client:
            answer = await client.get(f"{service.url}/state/things/seen/picky")
        return int(answer.json()["count"]) if answer.status_code == 200 else 0

    async def is_applied() -> bool:
        return await count() == 1

    await until(is_applied, "the replayed event is applied", 60)
    assert {str(each["id"]): each["decision"] for each in await listed("--all")} == {
        str(letter["id"]): "replay",
        str(other["id"]): "discard",
    }


async def test_address_where_no_platform_answers_is_named(folder: Path) -> None:
    (port,) = free_ports(1)
    said = await headrace(folder, "dead-letters", "list", "--url", f"http://127.0.0.1:{port}")
    assert said.code == 1
    assert said.err.startswith(f"headrace: --url http://127.0.0.1:{port} does not answer: ")
    assert said.err.count("\n") == 1
