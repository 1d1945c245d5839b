"""What a savepoint takes back is neither stored nor published; everything else of the transaction is both."""

from __future__ import annotations

from headrace import Headrace
from headrace.outbox.transaction import OutboxTransaction
from tests.support.accounts import Account, deposit, has_arrived


async def lose(events: Headrace, tx: OutboxTransaction, *amounts: int, account: str = "ada") -> None:
    """Append in a savepoint that is rolled back."""
    savepoint = tx.connection.transaction()
    await savepoint.start()
    await events.store(tx).append(Account, account, *(deposit(each, account) for each in amounts), expected=None)
    await savepoint.rollback()


async def test_what_a_savepoint_took_back_is_not_published(events: Headrace) -> None:
    async with events.transaction() as tx:
        await lose(events, tx, 111, 222)
        await events.store(tx).append(Account, "ada", deposit(1), expected=0)
        await lose(events, tx, 333)
        tx.emit(deposit(2))
        async with tx.connection.transaction():
            await events.store(tx).append(Account, "ada", deposit(3), expected=1)
        await lose(events, tx, 444, account="bob")
    async with events.transaction() as tx:
        await events.store(tx).append(Account, "bob", deposit(4, "bob"), expected=0)
    assert [each.event.amount for each in await events.store().read(Account, "ada")] == [1, 3]
    await has_arrived(events, {"ada": [1, 2, 3], "bob": [4]})


async def test_another_writer_takes_the_version_meanwhile(events: Headrace) -> None:
    """The savepoint gives the stream free; what somebody else appends there is not published twice."""
    async with events.transaction() as tx:
        await lose(events, tx, 111)
        await events.store().append(Account, "ada", deposit(1), expected=0)
    async with events.transaction() as tx:
        await events.store(tx).append(Account, "ada", deposit(2), expected=1)
    await has_arrived(events, {"ada": [1, 2]})
