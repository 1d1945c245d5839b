"""Sends what a service meets beside events: bodies that are refused, records that nobody can read, repeated events."""

import asyncio
import json
import os
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from aiokafka import AIOKafkaProducer

EVENT = {"specversion": "1.0", "id": "odd-1", "source": "/cluster-test", "type": "wallet.credited"}
BODIES = [
    b"{not json",
    json.dumps(EVENT | {"data": {"customer": "helm-test", "amount": -1}}).encode(),
    json.dumps(EVENT | {"data": {"customer": "helm-test", "amount": 1}}).encode(),
    json.dumps(EVENT | {"data": {"customer": "helm-test", "amount": 1}}).encode(),
]
RECORDS = [b"\xff\xfe", b'{"hello": "world"}', None]


def answer(body):
    """Return the status that a body is answered with."""
    headers = {"Content-Type": "application/cloudevents+json"}
    try:
        with urlopen(Request(os.environ["SERVICE"] + "/events", body, headers), timeout=10) as found:  # noqa: S310
            return found.status
    except HTTPError as error:
        return error.code


async def main():
    """Send all of it."""
    statuses = [answer(body) for body in BODIES]
    producer = AIOKafkaProducer(bootstrap_servers=os.environ["KAFKA"])
    await producer.start()
    for record in RECORDS:
        await producer.send_and_wait("wallets", record, key=b"odd")
    await producer.stop()
    sys.stdout.write(json.dumps(statuses) + "\n")


asyncio.run(main())
