"""A handler that raises, in whatever way, parks its event alone; the events of other keys are applied."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from headrace.log.memory import MemoryLog
from tests.support.platform import (
    execute,
    fetch,
    publish,
    running,
    settings_for,
    spread,
    until_settled,
)
from tests.support.services import (
    GOOD_PAGES,
    Page,
    journal,
    noted_numbers,
    swallowing,
)


class SilentError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def _raise(error: BaseException) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        raise error

    return act


def _raise_from_itself(page: Page) -> None:
    try:
        raise ValueError("round and round")
    except ValueError as error:
        raise error from error


def _keep(extra: object) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        page.extra = extra

    return act


BAD: dict[str, tuple[Callable[[Page], None], str]] = {
    "a state that is no JSON": (_keep(object()), "Unable to serialize unknown type"),
    "a state with half a character": (_keep("\ud800"), "surrogates not allowed"),
    "an error without a text": (_raise(SilentError()), "SilentError: (its text cannot be shown)"),
    "an error that is its own cause": (_raise_from_itself, "round and round"),
    "a text with half a character": (_raise(ValueError("\ud800\x00")), "ValueError"),
    "CancelledError": (_raise(asyncio.CancelledError()), "CancelledError"),
    "SystemExit": (_raise(SystemExit(1)), "SystemExit"),
    "KeyboardInterrupt": (_raise(KeyboardInterrupt()), "KeyboardInterrupt"),
    "GeneratorExit": (_raise(GeneratorExit()), "GeneratorExit"),
    "StopIteration": (_raise(StopIteration()), "StopIteration"),
    "an error that is no Exception": (_raise(BaseExceptionGroup("", [SystemExit()])), "BaseExceptionGroup"),
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_event_whose_handler_does_the_unheard_of_is_parked_alone(
    database_url: str, topic_name: str, is_async: bool
) -> None:
    """All of them in one batch: each is found, and nothing else is blamed."""
    bad = dict(BAD)
    if is_async:
        del bad["KeyboardInterrupt"]  # it ends the loop if a coroutine raises it: it is the operator's
    settings = settings_for(database_url, partitions=1, retry_attempts=2)
    platform = journal(settings, topic_name, {kind: act for kind, (act, _) in bad.items()}, is_async=is_async)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, [*GOOD_PAGES[:10], *bad, *GOOD_PAGES[10:]], 2))
        await until_settled(runtime, "notes")
        assert await noted_numbers(runtime) == {page: [1, 2] for page in GOOD_PAGES}
        letters = await fetch(runtime, "select key, reason, error from headrace.dead_letter")
        assert Counter(row["key"].decode() for row in letters) == dict.fromkeys(bad, 2)
        for row in letters:
            assert row["reason"] == "gave_up"
            assert bad[row["key"].decode()][1] in row["error"]
        assert runtime.health.liveness() == (True, [])


@pytest.mark.parametrize("kind", ["sync", "async", "async with a sync dependency", "transaction"])
async def test_dependency_that_swallows_an_error_keeps_nothing(database_url: str, topic_name: str, kind: str) -> None:
    """A dependency catches what its handler raises: nothing that the handler changed, emitted or wrote is kept."""
    platform = swallowing(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, kind)
    await execute(database_url, "create table public.booking (page text)")
    log = MemoryLog()
    async with running(platform, log) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad", "b"], 2))
        await until_settled(runtime, "notes", "echoes")
        assert await noted_numbers(runtime) == {"a": [1, 2], "b": [1, 2]}
        letters = await fetch(runtime, "select key, error from headrace.dead_letter")
        assert [row["key"] for row in letters] == [b"bad"] * 2
        assert all("a dependency swallowed the handler's error" in row["error"] for row in letters)
        assert await noted_numbers(runtime, "echoes") == {"all": [1, 1, 2, 2]}, (
            "an event was emitted by a failed handler"
        )
        booked = [row["page"] for row in await fetch(runtime, "select page from booking")]
        assert sorted(booked) == (["a", "a", "b", "b"] if kind == "transaction" else [])
