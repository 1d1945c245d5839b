"""Produces the events of a run straight into Kafka, some a second: `python burst.py RUN COUNT EVENTS_PER_SECOND`."""

import asyncio
import json
import os
import sys
import time

from aiokafka import AIOKafkaProducer
from model import events

TICK_SECONDS = 0.05


async def main():
    """Send all of them, in order per customer, each at its time."""
    run, count, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["KAFKA"], acks="all", enable_idempotence=True, linger_ms=20
    )
    await producer.start()
    began, waiting = time.monotonic(), []
    for number, (_, event_id, customer, amount, is_credit) in enumerate(events(run, count)):
        if number / rate > time.monotonic() - began:
            await asyncio.sleep(TICK_SECONDS)
        kind = b"wallet.credited" if is_credit else b"wallet.debited"
        headers = [("ce_specversion", b"1.0"), ("ce_id", event_id.encode()), ("ce_source", b"/cluster-test")]
        headers += [("ce_type", kind), ("content-type", b"application/json")]
        body = json.dumps({"customer": customer, "amount": amount}).encode()
        waiting.append(await producer.send("wallets", body, customer.encode(), headers=headers))
    await asyncio.gather(*waiting)
    await producer.stop()


asyncio.run(main())
