"""The bare loop: `getmany`, decode, fold in a dict, one upsert and one commit for each batch.

No dedupe, no validation, no metrics, no emits, at least once: the practical ceiling of one Python process. A batch has
at most as many records as one of Headrace.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

import asyncpg
import uvloop
from aiokafka import AIOKafkaConsumer

from bench.peers.wire import reader_of

BATCH_RECORDS = 10_000

UPSERT = """
insert into wallet as kept (customer, balance, credits, debits, applied)
select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
on conflict (customer) do update
set balance = kept.balance + excluded.balance, credits = kept.credits + excluded.credits,
    debits = kept.debits + excluded.debits, applied = kept.applied + excluded.applied
"""


async def main() -> None:
    """Consume until the process is ended."""
    database = await asyncpg.connect(os.environ["DATABASE"])
    consumer = AIOKafkaConsumer(
        os.environ["TOPIC"],
        bootstrap_servers=os.environ["KAFKA"],
        group_id=os.environ["GROUP"],
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    read = None
    while True:
        fetched = await consumer.getmany(timeout_ms=1_000, max_records=BATCH_RECORDS)
        wallets: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for records in fetched.values():
            read = read or reader_of(records[0])
            for record in records:
                is_credit, data = read(record)
                wallet = wallets[data.customer]
                if is_credit:
                    wallet[0] += data.amount
                    wallet[1] += 1
                else:
                    wallet[0] -= data.amount
                    wallet[2] += 1
        if wallets:
            await database.execute(UPSERT, *columns(wallets))
            await consumer.commit()


def columns(wallets: dict[str, list[int]]) -> tuple[list[Any], ...]:
    """Return the upsert's five columns, in the order of the keys, so that no two writers can deadlock."""
    customers = sorted(wallets)
    balances, credits, debits = zip(*[wallets[customer] for customer in customers], strict=True)
    return customers, list(balances), list(credits), list(debits), [a + b for a, b in zip(credits, debits, strict=True)]


if __name__ == "__main__":
    uvloop.run(main())
