"""A state that cannot be written, copied or read holds back its own key; the events of other keys are applied."""

from __future__ import annotations

from typing import Any, NoReturn

from pydantic import BaseModel, field_validator

from headrace import Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.platform import (
    execute,
    fetch,
    publish,
    running,
    sample,
    settings_for,
    spread,
    until_settled,
    value,
)
from tests.support.services import (
    GOOD_PAGES,
    Page,
    has_numbers,
    journal,
    noted_numbers,
)
from tests.support.waiting import until


async def test_state_is_kept_as_it_was_when_its_handler_was_done(database_url: str, topic_name: str) -> None:
    """A later event spoils it: the two states share a list, so that both cannot be written at the end."""
    shared: list[object] = []
    platform = Headrace("notebook", settings_for(database_url, partitions=1, retry_attempts=1_000))

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, page: State[Page]) -> None:
        page.numbers.append(event.number)
        page.extra = shared
        shared.clear() if event.page == "a" else shared.append(object())

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad"], 1))
        await until(lambda: has_numbers(runtime, {"a": [1]}), "the other key is applied")
        assert await _parked(runtime) == ["handler_error"]


async def test_state_that_cannot_be_copied_blames_the_right_event(database_url: str, topic_name: str) -> None:
    """No event is blamed for what another one did."""

    def fail(page: Locked) -> None:
        raise ValueError

    settings = settings_for(database_url, partitions=1, retry_attempts=2)
    platform = journal(settings, topic_name, {"bad": fail}, Locked)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, [*GOOD_PAGES, "bad"], 2))
        await until_settled(runtime, "notes")
        assert await noted_numbers(runtime) == {page: [1, 2] for page in GOOD_PAGES}
        assert await value(runtime, "select count(*) from headrace.dead_letter where key = 'bad'") == 2
        assert sample(runtime, "events_parked_total") == 2


class Locked(BaseModel):
    """A state that nothing can copy."""

    numbers: list[int] = []
    extra: Any = None

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> NoReturn:
        raise TypeError


async def test_state_that_does_not_fit_its_class_holds_its_key_back(database_url: str, topic_name: str) -> None:
    """The other keys are applied, and this one as soon as the class is mended."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1, retry_attempts=1_000)
    await execute(
        database_url,
        "insert into headrace.state (subscription, state, key, partition, version, data) "
        """values ('notebook.notes', 'page', 'bad', 0, 1, '{"numbers": "7 8"}')""",
    )
    flowing = ["a", "b", "c"]
    async with running(journal(settings, topic_name), log) as runtime:
        await publish(runtime, *spread(topic_name, ["bad", *flowing], 2))
        await until(lambda: has_numbers(runtime, {page: [1, 2] for page in flowing}), "the other keys are applied")
        assert await _parked(runtime) == ["handler_error", "behind_key"]
        error = await value(runtime, "select error from headrace.lane")
        assert "the state of this key does not fit its class" in error and "numbers" in error
    async with running(journal(settings, topic_name), log) as runtime:
        await publish(runtime, *spread(topic_name, ["bad", *flowing], 1))
        await until(
            lambda: has_numbers(runtime, {page: [1, 2, 1] for page in flowing}), "they flow after a restart as well"
        )
        assert len(await _parked(runtime)) == 3
    async with running(journal(settings, topic_name, state=_mended()), log) as runtime:
        await until_settled(runtime, "notes")
        assert await noted_numbers(runtime) == {"bad": [7, 8, 1, 2, 1]} | {page: [1, 2, 1] for page in flowing}
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0


def _mended() -> type[Any]:
    class Page(BaseModel):
        numbers: list[int] = []
        extra: Any = None

        @field_validator("numbers", mode="before")
        @classmethod
        def split(cls, given: Any) -> Any:
            return given.split() if isinstance(given, str) else given

    return Page


async def _parked(runtime: Runtime) -> list[str]:
    return [row["reason"] for row in await fetch(runtime, "select reason from headrace.parked order by number")]
