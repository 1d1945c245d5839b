"""What a person has discarded stays out when its record is read again, or the rewind is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from httpx import AsyncClient

from headrace import Headrace
from headrace.errors import ConfigurationError
from headrace.handlers.verdicts import DeadLetter
from headrace.log.memory import MemoryLog
from headrace.rewind.plan import Target
from headrace.rewind.window import known_before
from headrace.settings import Settings
from tests.integration.rewind.support import Sold, go_back, numbers, shop, sold
from tests.support.auditing import assert_promises_hold
from tests.support.platform import client, execute, publish, running, settings_for, until_settled, value

BAD = 30


class Mended:
    """A service that gives up on one event until it is mended."""

    def __init__(self, settings: Settings) -> None:
        self.is_mended = False
        self.platform: Headrace = shop(settings, self._check)

    def _check(self, event: Sold) -> None:
        if event.number == BAD and not self.is_mended:
            raise DeadLetter("bad")


async def discard(http: AsyncClient) -> Any:
    (letter,) = (await http.get("/dead-letters")).json()["dead_letters"]
    return await http.post(f"/dead-letters/{letter['id']}/discard")


async def test_a_narrow_window_keeps_it_out_or_refuses(database_url: str) -> None:
    """It is read again behind as many events as the window holds; from nearer it stays out, up to the last one."""
    service = Mended(settings_for(database_url, partitions=1, dedupe_window_ids=20, batch_records=5))
    async with running(service.platform, MemoryLog()) as runtime, client(service.platform) as http:
        await publish(runtime, *(sold("a", number) for number in range(40)))
        await until_settled(runtime, "sales", "counts")
        assert (await discard(http)).status_code == 200
        service.is_mended = True
        with pytest.raises(ConfigurationError, match="nothing was changed: go back to offset 11 or later"):
            await go_back(runtime, database_url)
        assert await value(runtime, "select count(*) from headrace.claim_move") == 0
        await go_back(runtime, database_url, target=Target(offset=11, partition=0))
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [number for number in range(40) if number != BAD]}


@pytest.mark.parametrize("odd", ["nul", "long"])
async def test_odd_names_do_not_bring_a_discarded_event_back(database_url: str, odd: str) -> None:
    """Postgres holds no NUL, and a letter shows no endless source: neither may change who the event is."""
    service = Mended(settings_for(database_url, partitions=1))
    source = b"/" + 2_047 * b"s" if odd == "long" else b"/so\x00urce"
    async with running(service.platform, MemoryLog()) as runtime, client(service.platform) as http:
        bad = sold("a", BAD)
        headers = [(name, source if name == "ce_source" else value) for name, value in bad.headers]
        await publish(runtime, sold("a", 1), msgspec.structs.replace(bad, headers=headers), sold("a", 2))
        await until_settled(runtime, "sales", "counts")
        assert (await discard(http)).status_code == 200
        service.is_mended = True
        await go_back(runtime, database_url)
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2]}
        await execute(database_url, "update headrace.dead_letter set value = null, headers = '\\x90'")  # it expires
        with pytest.raises(ConfigurationError, match="its letter has expired"):
            await go_back(runtime, database_url)
        await go_back(runtime, database_url, target=Target(offset=2, partition=0))
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2]}


async def test_one_discarded_while_the_claim_moves_stays_out(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Mended(settings_for(database_url, partitions=1))
    async with running(service.platform, MemoryLog()) as runtime, client(service.platform) as http:
        await publish(runtime, *(sold("a", number) for number in range(BAD - 2, BAD + 2)))
        await until_settled(runtime, "sales", "counts")

        async def meanwhile(*arguments: Any) -> Any:
            assert (await discard(http)).status_code == 200
            return await known_before(*arguments)

        monkeypatch.setattr("headrace.rewind.write.known_before", meanwhile)
        service.is_mended = True
        await go_back(runtime, database_url)
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [BAD - 2, BAD - 1, BAD + 1]}
        assert await value(runtime, "select decision from headrace.dead_letter") == "discard"
    await assert_promises_hold(database_url)


async def test_a_letter_that_a_rewind_took_out_is_decided(database_url: str) -> None:
    """Whoever discards it too late is told so."""
    service = Mended(settings_for(database_url, partitions=1))
    async with running(service.platform, MemoryLog()) as runtime, client(service.platform) as http:
        await publish(runtime, sold("a", BAD))
        await until_settled(runtime, "sales", "counts")
        await execute(database_url, "insert into headrace.subscription values ('shop.sales', true)")
        await go_back(runtime, database_url)
        letter = await value(runtime, "select id from headrace.dead_letter")
        answer = await http.post(f"/dead-letters/{letter}/discard")
        assert answer.status_code == 409 and "was taken out by a rewind at" in answer.json()["detail"]
