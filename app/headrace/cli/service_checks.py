"""The checks of `headrace doctor` that ask the database and the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import asyncpg

from headrace.cli.checks import Check
from headrace.cli.output import age
from headrace.database.migrate import PHASES, expected_version, schema_version
from headrace.database.pool import postgres_version
from headrace.engine.topics import topics_of
from headrace.errors import HeadraceError
from headrace.log.ports import Bounds, Log, TopicInfo, TopicPartition
from headrace.registry import Registry
from headrace.settings import Settings

KNOWN = "select topic, partitions, log_id from headrace.topic order by topic"
CLAIMS = """
select subscription, topic, partition, owner, next_offset, crashes, committed_at from headrace.claim
order by subscription, topic, partition
"""
PAUSED = "select subscription from headrace.subscription where paused"
LETTERS = "select subscription, count(*) as open from headrace.dead_letter where decision is null group by subscription"
PARKED = """
select subscription, count(distinct (partition, key)) as keys, min(parked_at) as since from headrace.parked
group by subscription order by subscription
"""


async def check_database(pool: asyncpg.Pool[Any]) -> Check:
    """Tell the server's version, and whether the schema is the one that this code works on."""
    async with pool.acquire() as connection:
        server, found = await postgres_version(connection), await schema_version(connection)
    what = f"PostgreSQL {server}, schema at " + ", ".join(f"{phase} {found[phase]:04}" for phase in PHASES)
    expected = {phase: expected_version(phase) for phase in PHASES}
    if any(found[phase] > expected[phase] for phase in PHASES):
        return Check(
            "FAIL", "database", f"{what}; this release ends at pre {expected['pre']:04}", "run the newer release"
        )
    if found["pre"] < expected["pre"]:
        return Check("FAIL", "database", f"{what}; needed is pre {expected['pre']:04}", "run headrace migrate")
    if found["post"] < expected["post"]:
        advice = "run headrace migrate --phase post when no older release runs any more"
        return Check("warn", "database", f"{what}; pending is post {expected['post']:04}", advice)
    return Check("ok", "database", what)


async def check_topics(
    log: Log, connection: Any | None, registry: Registry | None, settings: Settings
) -> AsyncIterator[Check]:
    """Yield a line per topic: those of the service, or without one those that were applied before."""
    known = {row["topic"]: row for row in await connection.fetch(KNOWN)} if connection is not None else {}
    names = topics_of(registry) if registry is not None else list(known)
    infos = await log.topics(names)
    for name in names:
        yield _topic(name, infos.get(name), known.get(name), registry, settings)
    for subscription in registry.subscriptions.values() if registry is not None else ():
        counts = {topic: infos[topic].partitions for topic in subscription.topics if topic in infos}
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{topic}: {count}" for topic, count in counts.items())
            advice = "give them the same number of partitions, or handle them in two subscriptions"
            yield Check("FAIL", f"subscription {subscription.name}", f"not co-partitioned ({shown})", advice)


def _topic(
    name: str, info: TopicInfo | None, known: asyncpg.Record | None, registry: Registry | None, settings: Settings
) -> Check:
    line = f"topic {name}"
    if info is None:
        if registry is not None and name not in registry.decoders:
            return Check("warn", line, "does not exist", "headrace run and headrace topics create it")
        return Check("FAIL", line, "does not exist", "create it")
    found = f"{info.partitions} partitions in {info.log_id}"
    if settings.partitions is not None and settings.partitions != info.partitions:
        advice = f"set HEADRACE_PARTITIONS={info.partitions}, or unset it"
        return Check("FAIL", line, f"{found}, but HEADRACE_PARTITIONS is {settings.partitions}", advice)
    if known is not None and known["log_id"] != info.log_id:
        advice = f"set HEADRACE_LOG back, or run headrace topics --accept {name}"
        return Check("FAIL", line, f"{found}, but it was applied from {known['log_id']}", advice)
    if known is not None and known["partitions"] != info.partitions:
        advice = f"drain it, then run headrace topics --accept {name}"
        return Check("FAIL", line, f"{found}, but it had {known['partitions']} before: keys have moved", advice)
    return Check("ok", line, found)


async def check_claims(log: Log, connection: Any, registry: Registry | None) -> AsyncIterator[Check]:
    """Yield a line per subscription that ever claimed a partition, and one for what waits for a person."""
    claims: dict[str, list[Any]] = defaultdict(list)
    for row in await connection.fetch(CLAIMS):
        claims[row["subscription"]].append(row)
    paused = {row["subscription"] for row in await connection.fetch(PAUSED)}
    sources = [TopicPartition(row["topic"], row["partition"]) for rows in claims.values() for row in rows]
    bounds = await _bounds(log, sources)
    for subscription, rows in claims.items():
        if registry is not None and subscription not in registry.subscriptions:
            advice = "harmless; a renamed subscription starts anew"
            yield Check("warn", f"claims of {subscription}", "the service does not declare this subscription", advice)
            continue
        yield _claims(subscription, rows, bounds, is_paused=subscription in paused)
    for row in await connection.fetch(PARKED):
        found = f"{row['keys']} keys wait for a retry, the oldest for {age(row['since'])}"
        yield Check("warn", f"lanes of {row['subscription']}", found, "the log of the worker says why they fail")
    for row in await connection.fetch(LETTERS):
        advice = f"headrace dead-letters list --subscription {row['subscription']}"
        yield Check("warn", f"dead letters of {row['subscription']}", f"{row['open']} open", advice)


def _claims(
    subscription: str, rows: Sequence[Any], bounds: Mapping[TopicPartition, Bounds], *, is_paused: bool
) -> Check:
    line, lag, wrong = f"claims of {subscription}", 0, []
    for row in rows:
        held = bounds.get(TopicPartition(row["topic"], row["partition"]))
        if held is None or not held.begin <= row["next_offset"] <= held.end:
            shown = f"{held.begin} to {held.end}" if held is not None else "nothing"
            wrong.append(f"{row['topic']}/{row['partition']} stands at {row['next_offset']}, the log holds {shown}")
        else:
            lag += held.end - row["next_offset"]
    if wrong:
        advice = f"headrace topics --accept {rows[0]['topic']} goes on at the beginning of what has changed"
        return Check("FAIL", line, "; ".join(wrong), advice)
    owners = {row["owner"] for row in rows if row["owner"] is not None}
    owned = sum(row["owner"] is not None for row in rows)
    last = max(row["committed_at"] for row in rows)
    found = (
        f"{owned} of {len(rows)} partitions owned by {len(owners)} processes, lag {lag}, last commit {age(last)} ago"
    )
    if is_paused:
        return Check("warn", line, f"{found}, paused", f"POST /subscriptions/{subscription}/resume goes on")
    if lag and not owned:
        return Check("warn", line, found, "no worker runs: headrace run")
    if suspects := [f"{row['topic']}/{row['partition']}" for row in rows if row["crashes"] >= 2]:
        return Check("warn", line, f"{found}; owners died in a row at {', '.join(suspects)}", "look at their last log")
    return Check("ok", line, found)


async def _bounds(log: Log, sources: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
    """Return what the log holds of the partitions; those it does not know are left out."""
    infos = await log.topics(sorted({source.topic for source in sources}))
    there = [
        source for source in sources if source.topic in infos and source.partition < infos[source.topic].partitions
    ]
    try:
        return await log.bounds(there)
    except HeadraceError:
        return {}
