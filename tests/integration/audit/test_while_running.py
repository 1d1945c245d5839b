"""Audits of a running platform: asked for, by themselves, and of what owners remember."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headrace.audit.memory import audit_memory
from headrace.audit.watch import audit_in_turn, audit_owned
from headrace.engine.context import EngineContext
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.command import headrace
from tests.support.platform import (
    client,
    execute,
    notebook,
    noted,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
    value,
    watched,
)
from tests.support.waiting import until

BREAK = "update headrace.claim set emitted_through = sequence + 7 where partition = 0"


def context_of(runtime: Runtime) -> EngineContext:
    """Return what the parts of the engine work with."""
    return runtime.consumers["notes"]._context


async def test_an_audit_over_http_names_what_is_broken(database_url: str, topic_name: str) -> None:
    """Its result is what every process shows, until the next audit finds that it is mended."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "ada", 1))
        await until_settled(runtime, "notes")
        clean = (await http.post("/subscriptions/notes/audit")).json()
        assert (clean["name"], clean["clean"], clean["findings"]) == ("notes", True, [])
        assert clean["examined"] == {"partitions": 1, "ledger_rows": 1, "event_ids": 1}
        assert set(clean["mismatches"]) == {"offsets", "ids", "emits", "lanes", "states"}
        await until(lambda: sample(runtime, "audit_last_run_timestamp_seconds") > 0, "the audit is shown")
        assert sample(runtime, "audit_mismatches") == 0

        await execute(database_url, "update headrace.state set version = 0")
        broken = (await http.post("/subscriptions/notes/audit")).json()
        (finding,) = broken["findings"]
        assert (broken["clean"], finding["check"]) == (False, "states")
        assert finding["detail"] == "notes of 'ada' has version 0, or no value."
        assert "keep a copy of the database" in finding["advice"]
        await until(lambda: sample(runtime, "audit_mismatches", check="states") == 1, "the finding is shown")

        await execute(database_url, "update headrace.state set version = 1")
        assert (await http.post("/subscriptions/notes/audit")).json()["clean"]
        await until(lambda: sample(runtime, "audit_mismatches") == 0, "the mended promise is shown")
        unknown = await http.post("/subscriptions/nothing/audit")
        assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/not-found")


async def test_a_platform_audits_itself_in_turn(database_url: str, topic_name: str) -> None:
    """Two processes share a subscription: within the interval one of them audits it."""
    settings = settings_for(database_url, audit_seconds=1.0)
    log = MemoryLog()
    async with watched(notebook(settings, topic_name), log) as runtime:
        await publish(runtime, noted(topic_name, "ada", 1))
        await until_settled(runtime, "notes")
        await until(lambda: value(runtime, "select audited_at from headrace.subscription"), "an audit is kept")
        await until(lambda: sample(runtime, "audit_last_run_timestamp_seconds") > 0, "the audit is shown")
        assert sample(runtime, "audit_mismatches") == 0
    patient = notebook(settings_for(database_url, audit_seconds=60.0), topic_name)
    async with running(patient, log) as runtime:
        await execute(database_url, "update headrace.subscription set audit_begun_at = null, audited_at = null")
        turns = [audit_in_turn(context_of(runtime), "notebook.notes") for _ in range(2)]
        await asyncio.gather(*turns)
        first = await value(runtime, "select audited_at from headrace.subscription")
        await audit_in_turn(context_of(runtime), "notebook.notes")
        assert await value(runtime, "select audited_at from headrace.subscription") == first


async def test_an_owner_finds_rows_that_were_changed_beside_it(database_url: str, topic_name: str) -> None:
    """By version and by value; what it remembers rightly is no finding, also while batches run."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        publishing = asyncio.create_task(publish(runtime, *(noted(topic_name, f"p{n % 50}", n) for n in range(5_000))))
        await until(lambda: value(runtime, "select count(*) > 0 from headrace.ledger"), "batches run")
        assert await _remembered(runtime) == []
        await publishing
        await until_settled(runtime, "notes")
        assert await _remembered(runtime) == []
        await execute(database_url, "update headrace.state set version = version + 1 where key = 'p7'")
        await execute(database_url, "update headrace.state set data = '{\"numbers\": [9]}' where key = 'p8'")
        details = sorted(await _remembered(runtime))
        assert "the notes of 'p7' is version " in details[0]
        assert "the notes of 'p8' (version " in details[1]
        await audit_owned(context_of(runtime), runtime.consumers["notes"])
        assert sample(runtime, "audit_mismatches", check="memory") == 2


async def test_the_command_audits_a_database(tmp_path: Path, database_url: str, topic_name: str) -> None:
    """It names what is broken and ends with 1; a subscription that is not there is a mistake."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "ada", 1))
        await until_settled(runtime, "notes")
    settings = {"HEADRACE_DATABASE": database_url}
    clean = await headrace(tmp_path, "audit", settings=settings)
    assert (clean.code, clean.out.splitlines()[-1]) == (0, "every promise holds"), clean.err
    await execute(database_url, BREAK)
    broken = await headrace(tmp_path, "audit", "--subscription", "notes", settings=settings)
    assert broken.code == 1
    assert f"emits: notebook.notes {topic_name}/0: emits are marked up to ledger row 8" in broken.out
    assert broken.out.splitlines()[-1] == "1 broken promise found"
    wrong = await headrace(tmp_path, "audit", "--subscription", "nothing", settings=settings)
    assert (wrong.code, wrong.err.count("\n")) == (1, 1)
    assert "no subscription 'nothing' has claims in the database; there are: notebook.notes." in wrong.err


async def _remembered(runtime: Runtime) -> list[str]:
    """Return what the owner of partition 0 finds in its memory."""
    tenure = runtime.consumers["notes"].workers[0].tenure
    assert tenure is not None
    return [finding.detail for finding in await audit_memory(context_of(runtime), "notebook.notes", 0, tenure)]
