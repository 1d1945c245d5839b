"""The checks of `headrace doctor` that ask the database, the log and the schema registry."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from headrace import sql
from headrace.cli.checks import Check
from headrace.cli.output import age
from headrace.database.migrate import PHASES, Schema, expected_version, read_schema
from headrace.database.pool import Pool, postgres_version, search_path_fault
from headrace.errors import HeadraceError
from headrace.log.ports import Bounds, Log, TopicPartition
from headrace.registry import Registry, check_schema_registry
from headrace.schema_registry.client import open_client
from headrace.settings import Settings
from headrace.state.orphans import ADVICE, orphans
from headrace.topics import known_topics, topic_faults, topics_of


async def check_database(pool: Pool, address: str) -> list[Check]:
    """Tell the server's version, whether this code can work on the schema, and where tables without a schema land."""
    async with pool.acquire() as connection:
        server, schema = await postgres_version(connection), await read_schema(connection)
    what = f"PostgreSQL {server}, schema at " + ", ".join(f"{phase} {schema.versions[phase]:04}" for phase in PHASES)
    fault = await search_path_fault(address)
    paths = [] if fault is None else [Check("warn", "search path", f"{fault.what} {fault.found}", fault.advice)]
    return [_schema(what, schema), *paths]


def _schema(what: str, schema: Schema) -> Check:
    if (fault := schema.newer or schema.older) is not None:
        return Check("FAIL", "database", f"{what}; the schema {fault.found}", fault.advice)
    if schema.lacks("post"):
        advice = "run headrace migrate --phase post when no older release runs any more"
        return Check("warn", "database", f"{what}; pending is post {expected_version('post'):04}", advice)
    newer = f"; a newer release has applied {', '.join(schema.unknown)}" if schema.unknown else ""
    return Check("ok", "database", what + newer)


async def check_schemas(settings: Settings, registry: Registry | None) -> list[Check]:
    """Tell whether the schema registry answers, if there is one, or a decoder needs one."""
    url, name = settings.schema_registry.url, "schema registry"
    try:
        if registry is not None:
            check_schema_registry(settings, registry)
        if url is None:
            return []
        if importlib.util.find_spec("httpx") is None:
            return [Check("FAIL", name, "httpx is not installed", "pip install 'headrace[registry]'")]
        async with open_client(settings.schema_registry) as client:
            await client.check()
    except HeadraceError as error:
        return [Check("FAIL", name, str(error))]
    topics = "" if registry is None else f"; it has the schemas of {', '.join(sorted(registry.schema_decoders)) or '-'}"
    return [Check("ok", name, f"{url} answers{topics}")]


async def check_topics(
    log: Log, connection: Any | None, registry: Registry | None, settings: Settings
) -> AsyncIterator[Check]:
    """Yield a line per topic: those of the service, or without one those that were applied before."""
    names = topics_of(registry) if registry is not None else None
    known = await known_topics(connection, names) if connection is not None else []
    names = names if names is not None else sorted({each.topic for each in known})
    infos = await log.topics(names)
    faults = topic_faults(infos, known, registry, settings)
    for fault in faults:
        yield Check("FAIL", fault.what, fault.found, fault.advice)
    for name in names:
        line, info = f"topic {name}", infos.get(name)
        if any(fault.what == line for fault in faults):
            continue
        if info is None:
            yield Check("warn", line, "does not exist", "headrace run and headrace topics create it")
        else:
            yield Check("ok", line, f"{info.partitions} partitions in {info.log_id}")


async def check_claims(log: Log, connection: Any, registry: Registry | None) -> AsyncIterator[Check]:
    """Yield a line per subscription that ever claimed a partition, and one for what waits for a person.

    Subscriptions of the service have their own name, those of other services that share the database their group's.
    """
    claims: dict[str, list[Any]] = defaultdict(list)
    for row in await connection.fetch(sql.claim.ALL):
        claims[row["subscription"]].append(row)
    paused = {row["subscription"]: "paused" for row in await connection.fetch(sql.subscription.ALL_PAUSED)}
    for row in await connection.fetch(sql.subscription.REWINDS):
        end = "is under way" if row["running"] else "was cut off, so that nothing was changed"
        paused[row["subscription"]] = (
            f"paused by a rewind that {row['by']} began {age(row['began_at'])} ago and that {end}"
        )
    partitions = [TopicPartition(row["topic"], row["partition"]) for rows in claims.values() for row in rows]
    bounds = await _bounds(log, partitions)
    names = {each.group: each.name for each in registry.subscriptions.values()} if registry is not None else {}
    for group, rows in claims.items():
        if registry is not None and group not in names and group.startswith(f"{registry.service}."):
            advice = "harmless; if it was renamed, the new name began from its own start"
            yield Check("warn", f"claims of {group}", "the service does not declare this subscription", advice)
            continue
        yield _claims(names.get(group, group), rows, bounds, paused.get(group))
    for name, state in await orphans(connection, registry.subscriptions.values() if registry is not None else ()):
        yield Check("warn", f"state {state} of {name}", "it is stored, and the service does not declare it", ADVICE)
    for row in await connection.fetch(sql.lane.PARKED_KEYS):
        found = f"{row['keys']} keys wait for a retry, the oldest for {age(row['since'])}"
        name = names.get(row["subscription"], row["subscription"])
        yield Check("warn", f"lanes of {name}", found, "the log of the worker says why they fail")
    for row in await connection.fetch(sql.dead_letter.COUNT_OPEN):
        name = names.get(row["subscription"], row["subscription"])
        advice = f"headrace dead-letters list --subscription {name}"
        yield Check("warn", f"dead letters of {name}", f"{row['open']} open", advice)


def _claims(
    subscription: str, rows: Sequence[Any], bounds: Mapping[TopicPartition, Bounds], paused: str | None
) -> Check:
    line, lag, wrong = f"claims of {subscription}", 0, []
    for row in rows:
        found = bounds.get(TopicPartition(row["topic"], row["partition"]))
        if found is None or not found.begin <= row["next_offset"] <= found.end:
            shown = f"{found.begin} to {found.end}" if found is not None else "nothing"
            wrong.append(f"{row['topic']}/{row['partition']} stands at {row['next_offset']}, the log holds {shown}")
        else:
            lag += found.end - row["next_offset"]
    if wrong:
        advice = f"headrace topics --accept {rows[0]['topic']} continues at the beginning of what has changed"
        return Check("FAIL", line, "; ".join(wrong), advice)
    owners = {row["owner"] for row in rows if row["owner"] is not None}
    owned = sum(row["owner"] is not None for row in rows)
    last = max(row["committed_at"] for row in rows)
    what = f"{owned} of {len(rows)} partitions owned by {len(owners)} processes, lag {lag}, last commit {age(last)} ago"
    if paused is not None:
        again = "rewind again, or " if "cut off" in paused else ""
        advice = f"{again}POST /subscriptions/{subscription}/resume ends the pause"
        if "under way" in paused:
            advice = "wait until it has ended, or end its process"
        return Check("warn", line, f"{what}, {paused}", advice)
    if lag and not owned:
        return Check("warn", line, what, "no worker runs: headrace run")
    if suspects := [f"{row['topic']}/{row['partition']}" for row in rows if row["crashes"] >= 2]:
        return Check("warn", line, f"{what}; owners died in a row at {', '.join(suspects)}", "look at their last log")
    return Check("ok", line, what)


async def _bounds(log: Log, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
    """Return what the log holds of the partitions; those it does not know are left out."""
    infos = await log.topics(sorted({topic for topic, _ in partitions}))
    there = [each for each in partitions if each.topic in infos and each.partition < infos[each.topic].partitions]
    try:
        return await log.bounds(there)
    except HeadraceError:
        return {}
