"""`headrace load`: a load test of one's own deployment, and proof at its end that nothing was lost or doubled."""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
import typer

from headrace.cli.api import KeyFile, read_key
from headrace.cli.output import stderr, stdout
from headrace.errors import ConfigurationError
from headrace.load.choosing import choose
from headrace.load.counters import Counters
from headrace.load.http_client import HttpClient
from headrace.load.live import Live
from headrace.load.page import page
from headrace.load.plan import Plan
from headrace.load.results import Report
from headrace.load.run import Run
from headrace.load.schedule import step_rates
from headrace.load.sender import HttpSender, KafkaSender
from headrace.load.tables import ending, step_table
from headrace.load.target import Target
from headrace.log.opening import new_log
from headrace.log.ports import Log
from headrace.settings import load_settings

OBSERVERS = 24
"""Connections for reading, apart from those that send: a watcher must not wait behind what it watches."""

Url = Annotated[str, typer.Argument(metavar="URL", help="The deployment, such as http://127.0.0.1:8000.")]


class Asked(NamedTuple):
    """The options, as they were given."""

    url: str
    type: str | None
    data: str | None
    state: str | None
    expect: list[str]
    keys: int
    rate: float
    up_to: float | None
    growth: float
    seconds: float
    warm_up: float
    arrivals: Literal["constant", "poisson"]
    batch: int
    connections: int
    kafka: str | None
    probes: float
    p99: float
    honour_retry_after: bool
    max_events: int
    drain_seconds: float
    seed: int
    metrics: list[str]
    api_key_file: Path | None
    json: Path | None
    html: Path | None
    yes: bool


def load(
    url: Url,
    type: Annotated[str | None, typer.Option(help="The type to send; without it, the example's wallet events.")] = None,
    data: Annotated[
        str | None, typer.Option(help='Its data as JSON, with "{key}", "{n}" and "{integer 1 100}".')
    ] = None,
    state: Annotated[
        str | None, typer.Option(metavar="SUBSCRIPTION/STATE", help="The state in which the effect is read.")
    ] = None,
    expect: Annotated[
        list[str] | None, typer.Option(help="What an event does to a field of it: seen=count, balance=sum(amount).")
    ] = None,
    keys: Annotated[int, typer.Option(help="Distinct keys.", min=1, max=10_000_000)] = 10_000,
    rate: Annotated[float, typer.Option(help="Events per second of the first step.", min=0.1)] = 500,
    up_to: Annotated[
        float | None, typer.Option(help="Raise the rate step by step up to this one, or to the knee.", min=0.1)
    ] = None,
    growth: Annotated[float, typer.Option(help="Each step's rate is this many times the last one.", min=1.01)] = 1.5,
    seconds: Annotated[float, typer.Option(help="The length of a step.", min=1, max=86_400)] = 10,
    warm_up: Annotated[float, typer.Option(help="Seconds at the first rate that do not count.", min=0, max=86_400)] = 5,
    arrivals: Annotated[Literal["constant", "poisson"], typer.Option(help="Equal gaps, or random ones.")] = "poisson",
    batch: Annotated[int, typer.Option(help="Events per request.", min=1, max=10_000)] = 1,
    connections: Annotated[int, typer.Option(help="The most connections that send.", min=1, max=5_000)] = 128,
    kafka: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,...", help="Send to the topics in Kafka instead of over HTTP.")
    ] = None,
    probes: Annotated[float, typer.Option(help="Events per second whose effect is waited for.", min=0, max=1_000)] = 10,
    p99: Annotated[float, typer.Option(help="A rate is held if 99 % are accepted within these milliseconds.")] = 1_000,
    honour_retry_after: Annotated[
        bool, typer.Option("--honour-retry-after", help="Send again what was answered with Retry-After, after it.")
    ] = False,
    max_events: Annotated[int, typer.Option(help="The run ends before it sends more than this.", min=1)] = 5_000_000,
    drain_seconds: Annotated[float, typer.Option(help="Wait this long at the end for the lag.", min=1)] = 120,
    seed: Annotated[int, typer.Option(help="The same seed sends the same events on the same schedule.")] = 1,
    metrics: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="The /metrics of each process that applies events.")
    ] = None,
    api_key_file: KeyFile = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as a page with plots.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending to another machine.")] = False,
) -> None:
    """Send events to a running deployment at a fixed rate, or at growing ones up to the knee, and check the result.

    Exit codes: 0 every accepted event was applied once, 1 not so (or the set-up is wrong), 2 wrong command line.
    """
    asked = Asked(
        *(url, type, data, state, expect or [], keys, rate, up_to, growth, seconds, warm_up, arrivals, batch),
        *(connections, kafka, probes, p99, honour_retry_after, max_events, drain_seconds, seed, metrics or []),
        *(api_key_file, json, html, yes),
    )
    try:
        report = asyncio.run(_load(asked))
    except asyncio.CancelledError:
        stderr.print("the run was cut short by a second signal, so nothing is proved")
        raise typer.Exit(1) from None
    stdout.print(step_table(report))
    for line in ending(report):
        stdout.print(line)
    if json is not None:
        _write(json, msgspec.json.format(msgspec.json.encode(report), indent=2).decode(), "--json")
    if html is not None:
        _write(html, page(report), "--html")
    raise typer.Exit(0 if report.exactness.is_exact else 1)


async def _load(asked: Asked) -> Report:
    key = read_key(asked.api_key_file)
    observing = HttpClient(asked.url, OBSERVERS, key)
    sending = HttpClient(asked.url, asked.connections, key)
    target = Target(observing)
    await target.learn()
    plan = _plan(asked, target)
    for line in plan.sentences():
        stderr.print(line)
    if not plan.is_on_this_machine and not asked.yes:
        _confirm()
    partitions = await target.partitions(plan.subscriptions)
    asked_for_counts = [HttpClient(address, 1, key) for address in plan.metrics] or [observing]
    counters = Counters(asked_for_counts, plan.subscriptions, plan.topics, partitions)
    log = await _kafka(asked)
    try:
        source = f"/headrace-load/{plan.run}"
        sender = (
            KafkaSender(log, source, sets_key=plan.sets_key)
            if log is not None
            else HttpSender(sending, source, sets_key=plan.sets_key)
        )
        with Live(stderr) as display:
            return await Run(plan, target, sender, counters, display).complete()
    finally:
        if log is not None:
            await log.stop()
        for client in (observing, sending, *asked_for_counts):
            client.close()


def _plan(asked: Asked, target: Target) -> Plan:
    choice = choose(target, asked.type, asked.data, asked.state, asked.expect)
    return Plan(
        target=asked.url,
        service=target.service,
        run=secrets.token_hex(4),
        kinds=choice.kinds,
        keys=asked.keys,
        sets_key=choice.sets_key,
        state=choice.state,
        subscriptions=choice.subscriptions,
        brokers=tuple(broker.strip() for broker in asked.kafka.split(",")) if asked.kafka else (),
        arrivals=asked.arrivals,
        rates=tuple(step_rates(asked.rate, asked.growth, asked.up_to)),
        seconds=asked.seconds,
        warm_up_seconds=asked.warm_up,
        batch=asked.batch,
        connections=asked.connections,
        probes_per_second=asked.probes,
        p99_milliseconds=asked.p99,
        honours_retry_after=asked.honour_retry_after,
        max_events=asked.max_events,
        drain_seconds=asked.drain_seconds,
        seed=asked.seed,
        metrics=tuple(asked.metrics),
    )


async def _kafka(asked: Asked) -> Log | None:
    """Return the log that `--kafka` names, connected with HEADRACE_KAFKA_... Raises: HeadraceError."""
    if asked.kafka is None:
        return None
    log = new_log(load_settings({"log": f"kafka://{asked.kafka}"}), None)
    await log.start()
    return log


def _confirm() -> None:
    """Ask before anything goes to another machine. Raises: ConfigurationError (nobody is there to answer)."""
    if not sys.stdin.isatty():
        raise ConfigurationError("the target is another machine, and nobody is here to be asked; pass --yes.")
    typer.confirm("Go on?", abort=True, err=True)


def _write(file: Path, text: str, option: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise ConfigurationError(f"{option} {file} cannot be written: {error.strerror}.") from error
    stderr.print(f"written: {file}")
