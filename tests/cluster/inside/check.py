"""Waits until everything is applied, and prints what differs from the sequential result: `python check.py RUNS`.

RUNS is a JSON list of [run, number of events], all that were ever sent. What the service tells is read over HTTP; the
emitted alerts are read from Kafka; the times of the commits of the last run come from the ledger.
"""

import asyncio
import json
import os
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from model import Model

LIMIT_SECONDS = 180
SUBSCRIPTIONS = ("wallets", "alerts")


def ask(path, method="GET"):
    """Return the answer as values; an address that does not exist is None."""
    try:
        with urlopen(Request(os.environ["SERVICE"] + path, method=method), timeout=10) as answer:  # noqa: S310
            return json.load(answer)
    except HTTPError as error:
        if error.code in (404, 405, 422):
            return None
        raise


def wait_for_lag_zero():
    """Return what /subscriptions says when no lag is left, or what it said at last."""
    deadline, found = time.monotonic() + LIMIT_SECONDS, None
    while time.monotonic() < deadline:
        try:
            found = {each["name"]: each for each in ask("/subscriptions")["subscriptions"]}
            if all(found[name]["lag"] == 0 and found[name]["parked_events"] == 0 for name in SUBSCRIPTIONS):
                return found
        except (HTTPError, URLError, OSError):
            pass  # the service is on its way back
        time.sleep(0.3)
    return found


def differences(model):
    """Compare every wallet, and the alerts that were applied, with the model."""
    wallets = {customer: ask(f"/state/wallets/wallet/{customer}") for customer in model.wallets}
    wrong = [f"wallet {c}: {wallets[c]}, not {w}" for c, w in model.wallets.items() if wallets[c] != w]
    applied = sum((wallet or {}).get("applied", 0) for wallet in wallets.values())
    if applied != model.applied:
        wrong.append(f"{applied} events are applied, {model.applied} were accepted")
    for customer, balances in model.alerts.items():
        expected, found = {"count": len(balances), "lowest": min(balances)}, ask(f"/state/alerts/alert/{customer}")
        if found != expected:
            wrong.append(f"alerts of {customer}: {found}, not {expected}")
    return wrong


async def inversions(model, count):
    """Compare the emitted alerts of each customer, each id once, with the model: same balances in the same order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=os.environ["KAFKA"], isolation_level="read_committed")
    await consumer.start()
    try:
        partitions = [TopicPartition("alerts", number) for number in range(count)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        seen, balances = set(), {}
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    event = json.loads(record.value)  # a structured CloudEvent, as everything that is emitted
                    if event["id"] not in seen:
                        seen.add(event["id"])
                        data = event["data"]
                        balances.setdefault(data["customer"], []).append(data["balance"])
    finally:
        await consumer.stop()
    return [f"alerts of {c} are out of order" for c, expected in model.alerts.items() if balances.get(c) != expected]


async def gaps(run_seconds):
    """Return the longest time between two commits of a partition in the last run, and when each moved and how long."""
    connection = await asyncpg.connect(os.environ["DATABASE"])
    try:
        rows = await connection.fetch(
            "select partition, epoch, extract(epoch from committed_at)::float8 as at from headrace.ledger "
            "where subscription = 'shop.wallets' and committed_at > now() - make_interval(secs => $1) "
            "and applied > 0 order by partition, sequence",
            run_seconds,
        )
    finally:
        await connection.close()
    longest, moves, last = 0.0, [], {}
    for row in rows:
        before = last.get(row["partition"])
        if before is not None:
            gap = row["at"] - before["at"]
            longest = max(longest, gap)
            if row["epoch"] != before["epoch"]:
                moves.append([row["at"], round(gap, 3)])
        last[row["partition"]] = row
    return {"longest_gap_seconds": round(longest, 3), "moves": [gap for _, gap in moves], "moved": moves}


def audit():
    """Return the mismatches that the service's own audit finds; None where it has no audit."""
    answers = [ask(f"/subscriptions/{name}/audit", "POST") for name in SUBSCRIPTIONS]
    return None if None in answers else answers


async def main():
    """Check, and print the findings."""
    runs = json.loads(sys.argv[1])
    began = float(sys.argv[2])
    found = wait_for_lag_zero()
    drained = time.time()
    model = Model(runs)
    if found is None:
        sys.exit("/subscriptions did not answer")
    wrong = differences(model) + await inversions(model, len(found["alerts"]["partitions"]))
    wrong += [f"{name} has a lag of {found[name]['lag']}" for name in SUBSCRIPTIONS if found[name]["lag"] != 0]
    wrong += [f"{name} has parked events" for name in SUBSCRIPTIONS if found[name]["parked_events"]]
    report = {"wrong": wrong[:10], "applied": model.applied, "audit": audit(), "drained_at": drained}
    sys.stdout.write(json.dumps(report | await gaps(time.time() - began)) + "\n")


asyncio.run(main())
