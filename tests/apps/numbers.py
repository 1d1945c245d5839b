"""What routes of several applications do with tables of their own."""

from __future__ import annotations

from headrace import Outbox


async def next_number(tx: Outbox, account: str, request: str) -> int | None:
    """Give the account its next number; None for a request that comes again, because it got no answer."""
    insert = "insert into booking (request, account, number) values ($1, $2, 0) on conflict do nothing"
    if (await tx.connection.execute(insert, request, account)).endswith(" 0"):
        return None
    number: int = await tx.connection.fetchval(
        "insert into account (name, number) values ($1, 1) "
        "on conflict (name) do update set number = account.number + 1 returning number",
        account,
    )
    await tx.connection.execute("update booking set number = $2 where request = $1", request, number)
    return number
