"""A service in trouble: two processes, steady load, and everything that can go wrong, one thing after the other."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from confluent_kafka import Producer

from headrace.log.ports import NewRecord
from tests.apps.troubled import BANK_IS_AWAY, REBUILD_SECONDS
from tests.support.command import headrace
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.postgres_proxy import PostgresProxy
from tests.support.process import ROOT
from tests.support.producing import produce
from tests.support.service import Service
from tests.support.waiting import until

APP = "tests.apps.troubled:app"
DEPOSITS = 120
PARTITIONS = 4
LOAD_PER_SECOND = 80
PAUSE_SECONDS = 3
"""Between two troubles: a few scrapes."""

REFUSE_MANY = """
create function public.refuse_many() returns trigger language plpgsql as $$
begin
    if (select count(*) from written) > 20 then raise exception 'out of memory' using errcode = '53200'; end if;
    return null;
end $$;
create trigger refuse_many after insert on headrace.state referencing new table as written
for each statement execute function public.refuse_many();
"""
ALLOW_MANY = "drop trigger refuse_many on headrace.state; drop function public.refuse_many()"

Step = Callable[[], Awaitable[object]]


class Shop:
    """The two processes and what they stand on."""

    def __init__(
        self, first: Service, second: Service, kafka: KafkaServer, postgres: PostgresServer, proxy: PostgresProxy
    ) -> None:
        self.first, self.second = first, second
        self._kafka, self._postgres, self._proxy = kafka, postgres, proxy
        self._folder = Path(first._folder)
        self._url = first.settings["HEADRACE_DATABASE"]
        self._client = httpx.AsyncClient(base_url=first.url, timeout=5)
        self._sent = 0

    def steps(self) -> list[tuple[str, Step]]:
        """Return every trouble in order, by what it is."""
        return [
            ("steady load", self._nothing),
            ("what is refused at the door", self._send_nonsense),
            ("bytes that are no event, copies, conflicts, strays", self._produce_oddly),
            ("handlers that fail", self._fail),
            ("a handler that blocks the loop", lambda: self._post("wallet.audited", customer="blocking-1")),
            ("emitted events, one of them too large", self._emit),
            ("the outbox, one event too large", self._use_outbox),
            ("sagas that end well, and not", self._withdraw),
            ("windows that close, and events too late for them", self._spend),
            ("aggregates, some of them with two writers", self._deposit),
            ("a projection is built again", self._rebuild),
            ("the bank is away", self._take_the_bank_away),
            ("a lost answer to COMMIT", self._lose_a_commit),
            ("a batch that is too large for Postgres", self._shrink),
            ("a pause, an audit, dead letters decided", self._operate),
            ("another producer's open transaction", self._hold_a_transaction),
            ("a handler that hangs", lambda: self._post("wallet.credited", customer="hanging-1", amount=1)),
            ("a frozen process", self._freeze),
            ("everybody dies while Kafka hangs", self._kill_before_publishing),
            ("Kafka restarts", self._restart_kafka),
            ("Postgres restarts", self._restart_postgres),
            ("an event that kills its process", self._kill),
            ("a polite restart", self._restart_politely),
            ("steady load again", self._nothing),
        ]

    async def load(self) -> None:
        """Send credits for ever; what is refused is not sent again."""
        while True:
            who = random.randrange(200)
            name = f"telling-{who}" if who < 20 else f"customer-{who}"
            with suppress(httpx.HTTPError):
                await self._client.post("/events/wallet.credited", json={"customer": name, "amount": 1})
            with suppress(httpx.HTTPError):
                await self._client.post(f"/tell/customer-{who}")
            await asyncio.sleep(1 / LOAD_PER_SECOND)

    async def _nothing(self) -> None:
        await asyncio.sleep(2 * PAUSE_SECONDS)

    async def _post(self, kind: str, **data: Any) -> None:
        with suppress(httpx.HTTPError):
            await self._client.post(f"/events/{kind}", json=data)

    async def _send_nonsense(self) -> None:
        for _ in range(5):
            await self._client.post("/events/wallet.credited", json={"amount": "many"})
            await self._client.post("/events", content=b"{", headers={"Content-Type": "application/cloudevents+json"})

    async def _produce_oddly(self) -> None:
        credit = {
            "specversion": "1.0",
            "id": "twice",
            "source": "/bench",
            "type": "wallet.credited",
            "data": {"customer": "ada", "amount": 1},
        }
        records = [NewRecord("wallets", b"ada", json.dumps(credit).encode(), [])] * 3
        credit["data"] = {"customer": "ada", "amount": 2}
        records += [NewRecord("wallets", b"ada", json.dumps(credit).encode(), [])]
        records += [NewRecord("wallets", b"ada", b"no event", [])] * 3
        for partition in range(PARTITIONS):
            await produce(self._kafka.bootstrap, records, partition=partition)

    async def _fail(self) -> None:
        for number in range(6):
            await self._post("wallet.credited", customer=f"failing-{number % 3}", amount=1)
            await self._post("payment.taken", customer=f"failing-{number % 3}")

    async def _emit(self) -> None:
        for number in range(3):
            await self._post("wallet.credited", customer=f"telling-{number}", amount=1)
            await self._post("wallet.credited", customer=f"waiting-{number}", amount=1)
        await self._post("wallet.credited", customer="shouting-1", amount=1)

    async def _use_outbox(self) -> None:
        await self._client.post("/tell/shouting")

    async def _withdraw(self) -> None:
        for number in range(20):
            kind = "poor" if number % 4 == 0 else "rich"
            await self._post("withdrawal.asked", customer=f"{kind}-{number}")

    async def _spend(self) -> None:
        """Send times that grow by a second, and behind them some that are long over; let a minute's states expire."""
        now = datetime.now(UTC)
        for seconds in (*range(20), *[-60] * 5):
            headers = {"ce-specversion": "1.0", "ce-type": "withdrawal.asked", "ce-source": "/bench"}
            headers |= {"ce-id": f"spent-{self._sent}", "ce-time": (now + timedelta(seconds=seconds)).isoformat()}
            self._sent += 1
            with suppress(httpx.HTTPError):
                await self._client.post("/events", json={"customer": "spending-1"}, headers=headers)
        connection = await asyncpg.connect(self._url)
        await connection.execute(
            "update headrace.state set expires_at = now() - interval '1 hour' where state = 'taught'"
        )
        await connection.close()

    async def _deposit(self) -> None:
        for number in range(DEPOSITS):
            stale = {"is_stale": "true"} if number % 10 == 0 else None
            await self._client.post(f"/accounts/account-{number % 20}/deposits", params=stale)

    async def _rebuild(self) -> None:
        """Take long enough for a few scrapes."""
        settings = self.first.settings | {"PYTHONPATH": f"{ROOT / 'app'}:{ROOT}", REBUILD_SECONDS: "0.1"}
        said = await headrace(self._folder, "rebuild", APP, "totals", settings=settings)
        if said.code != 0:
            raise RuntimeError(f"the projection was not built again: {said.err}")

    async def _take_the_bank_away(self) -> None:
        (self._folder / BANK_IS_AWAY).touch()
        for number in range(8):
            await self._post("payment.taken", customer=f"payer-{number}")
        await asyncio.sleep(2 * PAUSE_SECONDS)
        (self._folder / BANK_IS_AWAY).unlink()

    async def _lose_a_commit(self) -> None:
        for _ in range(2):
            cuts = self._proxy.cuts
            self._proxy.drop_answer_to_commit()
            await until(lambda: self._proxy.cuts > cuts, "a commit was cut", 20)  # noqa: B023

    async def _shrink(self) -> None:
        credits = [
            {
                "specversion": "1.0",
                "id": f"many-{number}",
                "source": "/bench",
                "type": "wallet.credited",
                "data": {"customer": f"many-{number}", "amount": 1},
            }
            for number in range(400)
        ]
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(REFUSE_MANY)
            kind = {"Content-Type": "application/cloudevents-batch+json"}
            await self._client.post("/events", content=json.dumps(credits), headers=kind)
            await asyncio.sleep(PAUSE_SECONDS)
            await connection.execute(ALLOW_MANY)
        finally:
            await connection.close()

    async def _operate(self) -> None:
        await self._client.post("/subscriptions/alerts/pause")
        await self._client.post("/subscriptions/wallets/audit")
        letters = (await self._client.get("/dead-letters")).json()["dead_letters"]
        for letter, decision in zip(letters, ("discard", "replay", "replay"), strict=False):
            await self._client.post(f"/dead-letters/{letter['id']}/{decision}")
        await asyncio.sleep(PAUSE_SECONDS)
        await self._client.post("/subscriptions/alerts/resume")

    async def _hold_a_transaction(self) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap, "transactional.id": "slow"})
        await asyncio.to_thread(producer.init_transactions, 20)
        producer.begin_transaction()
        for partition in range(PARTITIONS):
            producer.produce("wallets", b"no event", b"held", partition=partition)
        await asyncio.to_thread(producer.flush, 20)
        await asyncio.sleep(2 * PAUSE_SECONDS)
        await asyncio.to_thread(producer.abort_transaction, 20)

    async def _freeze(self) -> None:
        """Freeze a process while it has a batch in hand: it finds its claims taken when it wakes up."""
        for number in range(4):
            await self._post("wallet.credited", customer=f"slow-{number}", amount=1)
        await asyncio.sleep(0.3)
        self.second.pause()
        await asyncio.sleep(12)
        self.second.resume()
        await asyncio.sleep(PAUSE_SECONDS)

    async def _kill_before_publishing(self) -> None:
        """Kill both processes when they have committed events that Kafka does not have yet: new owners publish them."""
        for number in range(60):
            await self._post("wallet.credited", customer=f"telling-{number}", amount=1)
        self._kafka.pause()
        await asyncio.sleep(1)
        await asyncio.gather(self.first.kill(), self.second.kill())
        self._kafka.resume()
        await asyncio.gather(self.first.start(), self.second.start())

    async def _restart_kafka(self) -> None:
        await self._kafka.kill()
        await asyncio.sleep(PAUSE_SECONDS)
        await self._kafka.start()
        await asyncio.sleep(PAUSE_SECONDS)

    async def _restart_postgres(self) -> None:
        await self._postgres.kill()
        await asyncio.sleep(PAUSE_SECONDS)
        await self._postgres.start()
        await asyncio.sleep(PAUSE_SECONDS)

    async def _kill(self) -> None:
        """Let an event kill whoever has it, and start that process again, until it is a dead letter."""
        body = {"customer": "killing-1", "amount": 1}
        await until(lambda: self._is_accepted("wallet.credited", body), "the event is accepted", 30)
        async with asyncio.timeout(120):
            while not await self._is_given_up():
                for service in (self.first, self.second):
                    if not service.is_running:
                        await service.start(ready=False)
                await asyncio.sleep(0.2)

    async def _is_accepted(self, kind: str, body: dict[str, Any]) -> bool:
        with suppress(httpx.HTTPError):
            return (await self._client.post(f"/events/{kind}", json=body)).status_code == 202
        return False

    async def _is_given_up(self) -> bool:
        with suppress(httpx.HTTPError):
            answer = await self._client.get("/dead-letters", params={"key": "killing-1"})
            return answer.status_code == 200 and bool(answer.json()["dead_letters"])
        return False

    async def _restart_politely(self) -> None:
        await self.second.leave()
        await self.second.start()
