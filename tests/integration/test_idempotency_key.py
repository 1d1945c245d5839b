"""`Idempotency-Key` becomes the event's id: it has the id's limit, and stands for one event of one type."""

from __future__ import annotations

from headrace import Event, Headrace, State
from headrace.log.memory import MemoryLog
from tests.support.platform import Notes, client, notebook, running, settings_for, states, until_settled


async def test_key_that_is_too_long_is_refused(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()), client(platform) as http:
        for characters, status in ((1_024, 202), (1_025, 400)):
            answer = await http.post(
                "/events/noted", json={"page": "a", "number": 1}, headers={"Idempotency-Key": "k" * characters}
            )
            assert answer.status_code == status
        assert "the attribute id has 1,025 characters; at most 1,024 are taken" in answer.json()["detail"]


async def test_one_key_for_two_types_is_two_events(database_url: str, topic_name: str) -> None:
    platform = Headrace("orders", settings_for(database_url, partitions=1))

    class Placed(Event, type="order.placed", topic=topic_name, key="order"):
        order: str

    class Paid(Event, type="order.paid", topic=topic_name, key="order"):
        order: str

    orders = platform.subscription("orders")

    @orders.on(Placed)
    def place(event: Placed, notes: State[Notes]) -> None:
        notes.numbers.append(1)

    @orders.on(Paid)
    def pay(event: Paid, notes: State[Notes]) -> None:
        notes.numbers.append(2)

    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        for type_ in ("order.placed", "order.paid", "order.paid"):
            answer = await http.post(f"/events/{type_}", json={"order": "7"}, headers={"Idempotency-Key": "seven"})
            assert answer.status_code == 202
        await until_settled(runtime, "orders")
        assert await states(runtime, "orders", "notes") == {"7": {"numbers": [1, 2]}}
