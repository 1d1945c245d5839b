"""What became of an event: each outcome, from what is kept anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from headrace import Emit, Event, Headrace, Record, State, Step
from headrace.explain import explain as explaining
from headrace.explain import log_search, search
from headrace.handlers.verdicts import DeadLetter
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, TopicPartition
from headrace.runtime import SEARCHES
from headrace.settings import Settings
from tests.support.platform import Notes, client, execute, noted, publish, record, running, settings_for, value
from tests.support.waiting import until

SOURCE = {"source": "/tests"}
SETTLED = """
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", headers, source, event_id,
                                  type, reason, error, decision, decided_at, settled_at)
select subscription, partition, topic, "offset", "timestamp", headers, '/others/' || number, event_id, type, reason,
       error, 'replay', now(), now()
from headrace.dead_letter, generate_series(1, 20) as number
"""
"""Makes twenty letters of other sources out of the one that is there, all of them replayed."""


def notebook(settings: Settings, topic: str) -> Headrace:
    """Return a service that echoes what it notes; pages `torn` fail."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{topic}-echoes", key="page"):
        page: str

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, kept: State[Notes], emit: Emit) -> None:
        if event.page == "torn":
            raise ValueError("no paper")
        kept.numbers.append(event.number)
        emit(Echoed(page=event.page))

    @platform.subscription("echoes").on(Echoed)
    def echo(event: Echoed, kept: State[Notes]) -> None:
        kept.numbers.append(1)

    return platform


Ask = Callable[..., Awaitable[dict[str, Any]]]


async def _is(ask: Ask, event_id: str, outcome: str) -> bool:
    return bool((await ask(event_id))["notes"]["outcome"] == outcome)


async def test_each_outcome_is_told(database_url: str, topic_name: str) -> None:
    """Applied with what it emitted, parked and behind what, dead and why, pending, and not known."""
    settings = settings_for(database_url, partitions=2, retry_first_seconds=900, retry_max_seconds=900)
    platform = notebook(settings, topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:

        async def fates(event_id: str, **query: str) -> dict[str, Any]:
            answer = await http.get(f"/events/{event_id}", params=query)
            assert answer.status_code == 200, answer.text
            return {fate["subscription"]: fate for fate in answer.json()["fates"]}

        await publish(runtime, noted(topic_name, "ada", 1, "first"), noted(topic_name, "ada", 2, "second"))
        await publish(runtime, noted(topic_name, "torn", 1, "head"), noted(topic_name, "torn", 2, "tail"))
        await publish(runtime, record(topic_name, "noted", {"page": 7}, key="odd", id="odd"))
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.parked"), "two events wait")
        await until(lambda: value(runtime, "select count(*) = 1 from headrace.dead_letter"), "one is given up on")
        await until(
            lambda: value(
                runtime, "select count(*) = 1 from headrace.state where state = 'notes' and subscription like '%echoes'"
            ),
            "the echoes are applied",
        )

        second = (await fates("second", **SOURCE))["notes"]
        assert (second["outcome"], second["topic"], second["type"]) == ("applied", topic_name, "noted")
        assert second["accepted_at"] is not None and second["at"] >= second["accepted_at"]
        (emitted,) = second["emitted"]
        assert (emitted["type"], emitted["topic"]) == ("echoed", f"{topic_name}-echoes")
        assert (await fates(emitted["id"]))["echoes"]["outcome"] == "applied"  # its source is known

        head, tail = (await fates("head"))["notes"], (await fates("tail"))["notes"]
        assert head["outcome"] == tail["outcome"] == "parked"
        assert "it failed 1 times" in head["detail"] and "no paper" in head["detail"]
        assert "it waits behind the event head of its key" in tail["detail"]
        odd = (await fates("odd"))["notes"]
        assert odd["outcome"] == "dead_letter" and "(schema)" in odd["detail"]

        unknown = await fates("second")
        assert unknown["notes"]["outcome"] == "unknown"
        assert "name it with `source`" in unknown["notes"]["detail"]
        await http.post("/subscriptions/notes/pause")
        await until(lambda: runtime.consumers["notes"].workers[0].orders.is_paused, "the subscription is paused")
        await publish(runtime, noted(topic_name, "bob", 1, "late"))
        await until(lambda: _is(fates, "late", "pending"), "the event waits in the log")


async def test_where_an_effect_of_the_event_stands(database_url: str, topic_name: str) -> None:
    """Started, waiting for another attempt or behind its key, held, ended, and failed for good, with its steps."""
    settings = settings_for(database_url, partitions=2, retry_first_seconds=900, retry_max_seconds=900)
    platform, is_open = Headrace("mailroom", settings), asyncio.Event()

    class Written(Event, type="written", topic=topic_name, key="to"):
        to: str

    class Filed(Event, type="filed", topic=topic_name, key="to"):
        to: str

    async def stamp() -> str:
        return "stamped"

    mails = platform.subscription("mails")

    @mails.effect(Written, attempts=2)
    async def mail(event: Written, step: Step) -> None:
        if event.to == "slow":
            await is_open.wait()
        if event.to == "nowhere":
            await step("stamp", stamp)
            raise DeadLetter("no such street")
        if event.to == "away":
            raise ConnectionError("nobody opens")

    @mails.effect(Filed, attempts=1, at_end="hold")
    async def file(event: Filed) -> None:
        raise OSError("the drawer is full")

    async with running(platform, MemoryLog()) as runtime, client(platform) as http:

        async def stands(event_id: str) -> dict[str, Any]:
            answer = await http.get(f"/events/{event_id}", params=SOURCE)
            (fate,) = answer.json()["fates"]
            return fate["effect"] or {"stage": None}

        async def is_at(event_id: str, stage: str) -> bool:
            return bool((await stands(event_id))["stage"] == stage)

        for event_id, to in {"1": "ann", "2": "slow", "3": "away", "4": "away", "5": "nowhere"}.items():
            await publish(runtime, record(topic_name, "written", {"to": to}, key=to, id=event_id))
        await publish(runtime, record(topic_name, "filed", {"to": "archive"}, key="archive", id="6"))
        await until(lambda: is_at("1", "ended"), "the first is done")
        await until(lambda: is_at("5", "failed"), "the last is given up on")
        assert (await stands("5"))["steps"] == ["stamp"]
        await until(lambda: value(runtime, "select count(*) = 1 from headrace.effect where attempts = 1"), "one failed")
        waits, behind = await stands("3"), await stands("4")
        assert (
            waits["stage"] == "waits" and "it failed 1 times" in waits["detail"] and "nobody opens" in waits["detail"]
        )
        assert behind["stage"] == "waits" and "behind an earlier call of its key" in behind["detail"]
        await until(lambda: is_at("6", "held"), "it is held")
        assert "the drawer is full" in (await stands("6"))["detail"]
        started = await stands("2")
        assert started["stage"] == "started" and started["name"].endswith("mail") and started["attempts"] == 0
        is_open.set()
        await until(lambda: is_at("2", "ended"), "the slow one is done")


async def test_a_held_event_and_a_type_with_other_signs(database_url: str, topic_name: str) -> None:
    """A key that is held has no next run, and a plain event's source is its type as an address has it."""
    settings = settings_for(database_url, partitions=2, retry_attempts=1, retry_at_end="hold")
    platform = Headrace("notebook", settings)

    class Torn(Event, type="com.example:torn", topic=topic_name, key="page"):
        page: str

    @platform.subscription("notes").on(Torn)
    def note(event: Torn) -> None:
        if event.page == "torn":
            raise ValueError("no paper")

    async with running(platform, MemoryLog()) as runtime, client(platform) as http:

        async def fate(event_id: str) -> dict[str, Any]:
            (found,) = (await http.get(f"/events/{event_id}")).json()["fates"]
            return dict(found)

        async def is_told(event_id: str, outcome: str) -> bool:
            return bool((await fate(event_id))["outcome"] == outcome)

        for event_id, page in (("1", "torn"), ("2", "torn"), ("3", "whole")):
            headers = {"Idempotency-Key": event_id}
            answer = await http.post("/events/com.example:torn", json={"page": page}, headers=headers)
            assert answer.status_code == 202, answer.text
        held = "select count(*) = 1 from headrace.lane where due_at = 'infinity'"
        await until(lambda: value(runtime, held), "the key is held")
        await until(lambda: is_told("2", "parked"), "the second event waits")
        await until(lambda: is_told("3", "applied"), "the third one is applied")
        assert "no paper) and is held; it waits for `headrace lanes retry`." in (await fate("1"))["detail"]
        assert "behind the event 1 of its key (offset 0), which is held: " in (await fate("2"))["detail"]


async def test_record_of_a_foreign_topic_is_found_by_its_place(database_url: str, topic_name: str) -> None:
    """Its id is its partition, offset and time; nobody has to name the source as well."""
    platform, log = Headrace("notebook", settings_for(database_url, partitions=1)), MemoryLog()

    class Counted(Event, type="counted", topic=topic_name):
        page: str

    @platform.decoder(topic_name)
    def count(record: Record) -> Counted:
        return Counted(page=(record.value or b"").decode())

    @platform.subscription("notes").on(Counted)
    def note(event: Counted, kept: State[Notes]) -> None:
        kept.numbers.append(1)

    await log.create(topic_name, 1)
    async with running(platform, log) as runtime, client(platform) as http:

        async def is_told(record: Record, outcome: str) -> bool:
            answer = await http.get(f"/events/{record.partition}/{record.offset}/{record.timestamp}")
            (fate,) = answer.json()["fates"]
            return bool((fate["outcome"], fate["source"]) == (outcome, f"/topics/{topic_name}"))

        async def written(offset: int) -> Record:
            await log.publish([NewRecord(topic_name, b"key", b"page", [])])
            reader = await log.reader({TopicPartition(topic_name, 0): offset})
            ((record,),) = (await reader.fetch(1, 1_000, 1.0)).values()
            await reader.close()
            return record

        applied = await written(0)
        await until(lambda: is_told(applied, "applied"), "it is applied")
        await http.post("/subscriptions/notes/pause")
        await until(lambda: runtime.consumers["notes"].workers[0].orders.is_paused, "the subscription is paused")
        waiting = await written(1)
        await until(lambda: is_told(waiting, "pending"), "it waits")


async def test_events_of_several_sources_with_one_id(database_url: str, topic_name: str) -> None:
    """Each has what it emitted itself, though one batch has applied both."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        one, other = (noted(topic_name, page, 1, "7") for page in ("ada", "bob"))
        headers = [(name, b"/others" if name == "ce_source" else value) for name, value in other.headers]
        await publish(runtime, one, msgspec.structs.replace(other, headers=headers))
        await until(
            lambda: value(runtime, "select count(*) = 4 from headrace.state"), "both are applied, and their echoes"
        )
        emitted: list[str] = []
        for source in ("/tests", "/others"):
            answer = await http.get("/events/7", params={"source": source})
            (fate,) = [each for each in answer.json()["fates"] if each["subscription"] == "notes"]
            emitted += [each["id"] for each in fate["emitted"]]
        assert len(emitted) == len(set(emitted)) == 2


async def test_unknown_says_how_far_back_was_looked(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger may keep more ids than are looked through: what was applied before those may be in it."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:

        async def unknown() -> str:
            answer = await http.get("/events/nobody")
            (fate,) = [each for each in answer.json()["fates"] if each["subscription"] == "notes"]
            return str(fate["detail"])

        for number in range(1, 4):
            await publish(runtime, noted(topic_name, "ada", number))
            applied = f"select count(*) = {number} from headrace.ledger where subscription = 'notebook.notes'"
            await until(lambda applied=applied: value(runtime, applied), "the batch is applied")  # type: ignore[misc]
        await execute(
            database_url,
            "update headrace.ledger set committed_at = committed_at - (9 - sequence) * interval '3 minutes' "
            "where subscription = 'notebook.notes'",
        )
        times = "select committed_at from headrace.ledger where sequence = $1 and topic = $2"
        at = [await value(runtime, times, sequence, topic_name) for sequence in (1, 3)]
        first, third = (f"{each:%Y-%m-%d %H:%M}" for each in at)
        assert f"ledger since {first} UTC" in await unknown()
        monkeypatch.setattr(search, "IDS", 1)
        assert f"ledger since {third} UTC" in await unknown()


async def test_a_type_that_nobody_takes_is_not_pending(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await http.post("/subscriptions/notes/pause")
        await until(lambda: runtime.consumers["notes"].workers[0].orders.is_paused, "the subscription is paused")
        await publish(runtime, record(topic_name, "foreign", {}, key="ada", id="8"))
        answer = await http.get("/events/8", params=SOURCE)
        assert [fate["outcome"] for fate in answer.json()["fates"]] == ["unknown", "unknown"]


async def test_many_questions_read_the_log_a_few_at_a_time(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each opens a reader; without a bound, a burst of questions about unknown ids opens as many."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    open_now, most_open, may_end = 0, 0, asyncio.Event()

    async with running(platform, MemoryLog()), client(platform) as http:
        find = log_search.find_pending

        async def counted(*given: Any) -> Any:
            nonlocal open_now, most_open
            open_now += 1
            most_open = max(most_open, open_now)
            await may_end.wait()
            open_now -= 1
            return await find(*given)

        monkeypatch.setattr(explaining, "find_pending", counted)
        asked = asyncio.gather(*(http.get(f"/events/nobody-{number}") for number in range(20)))
        await until(lambda: open_now == SEARCHES, "as many as may look in the log")
        may_end.set()
        answers = await asked
        assert {answer.status_code for answer in answers} == {200}
        assert most_open == SEARCHES


async def test_an_open_letter_is_found_behind_settled_ones(database_url: str, topic_name: str) -> None:
    """Of many sources that use one id."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, record(topic_name, "noted", {"page": 7}, key="odd", id="9"))
        await until(lambda: value(runtime, "select count(*) = 1 from headrace.dead_letter"), "it is given up on")
        await execute(database_url, SETTLED)
        answer = await http.get("/events/9", params={})
        (fate,) = [each for each in answer.json()["fates"] if each["subscription"] == "notes"]
        assert fate["outcome"] == "dead_letter"


async def test_an_id_may_hold_slashes(database_url: str, topic_name: str) -> None:
    """The ids of the event store do."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "ada", 1, "account/ada/1"))
        await until(lambda: value(runtime, "select count(*) > 0 from headrace.state"), "it is applied")
        for path in ("account/ada/1", "account%2Fada%2F1"):
            answer = await http.get(f"/events/{path}", params=SOURCE)
            assert answer.status_code == 200, answer.text
            assert {fate["outcome"] for fate in answer.json()["fates"] if fate["subscription"] == "notes"} == {
                "applied"
            }


@pytest.mark.parametrize("event_id", ["stream", "..", "a?b#c", "/"])
async def test_any_id_is_found_by_a_query(database_url: str, topic_name: str, event_id: str) -> None:
    """`/events/stream` is the stream of all events, whatever an event is called."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "ada", 1, event_id))
        await until(lambda: value(runtime, "select count(*) > 0 from headrace.state"), "it is applied")
        answer = await http.get("/events", params={"id": event_id, **SOURCE})
        assert answer.status_code == 200, answer.text
        fates = answer.json()["fates"]
        assert {fate["outcome"] for fate in fates if fate["subscription"] == "notes"} == {"applied"}
        assert (await http.get("/events")).status_code == 422
