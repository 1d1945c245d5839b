"""The HTTP door of one ingest process: its peak beside a bare FastAPI route, and three times as much."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median

import uvloop
from rich.console import Console

from bench.http.client import Answers, milliseconds
from bench.http.door import BARE_ROUTE, BATCH_EVENTS, HEADRACE, Door, batches, door, single
from bench.servers import Servers, servers
from bench.tables import Rows, terminal

TIMES = 3.0
"""How much more than the peak is offered."""

LOADS = (("of one event", single, 1), (f"of {BATCH_EVENTS} events", batches, BATCH_EVENTS))
"""Requests, what makes them, and how many events are in one."""

console = Console(width=140)


def main(words: Sequence[str]) -> None:
    """Print the peaks and what came back of the flood."""
    parser = argparse.ArgumentParser(prog="python -m bench http", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison, in turn (default: 3)")
    arguments = parser.parse_args(words)
    uvloop.run(_run(arguments.seconds, arguments.rounds))  # a client that is slower than the server measures itself


async def _run(seconds: float, rounds: int) -> None:
    async with servers("own", is_traced=True) as running:
        for name, request, events in LOADS:
            compared = await _compare(running, request(), events, seconds, rounds)
            console.print(terminal(compared, f"requests {name} in a closed loop; medians"))
        async with door(running, HEADRACE) as headrace:
            names = ["requests", "offered/s", "accepted events/s", "of the peak", "µs of processor per event"]
            rows: Rows = [[*names, "p50 ms", "p99 ms", "sent late, p99 ms", "answers"]]
            for name, request, events in LOADS:
                rows += await _flood(headrace, name, request(), events, seconds)
            console.print(terminal(rows, "Headrace, one ingest process: at its peak, and flooded in an open loop"))


async def _compare(running: Servers, request: Callable[[], bytes], events: int, seconds: float, rounds: int) -> Rows:
    rates: dict[str, list[float]] = {BARE_ROUTE.label: [], HEADRACE.label: []}
    costs: dict[str, list[float]] = {BARE_ROUTE.label: [], HEADRACE.label: []}
    for _ in range(rounds):
        for contender in (BARE_ROUTE, HEADRACE):
            async with door(running, contender) as each:
                answers, used = await each.peak(request, seconds)
            rates[contender.label].append(answers.accepted_per_second * events)
            costs[contender.label].append(used / max(1, answers.statuses["202"] * events) * 1e6)
    bare = median(rates[BARE_ROUTE.label])
    return [
        ["server", "accepted events/s", ": bare route", "µs of processor each"],
        *(
            [label, f"{median(found):,.0f}", f"{median(found) / bare:.2f}", f"{median(costs[label]):,.1f}"]
            for label, found in rates.items()
        ),
    ]


async def _flood(headrace: Door, name: str, request: Callable[[], bytes], events: int, seconds: float) -> Rows:
    peak, used = await headrace.peak(request, seconds)
    rate = peak.accepted_per_second
    cost = used / max(1, peak.statuses["202"] * events) * 1e6
    flood, grown = await headrace.flood(request, TIMES * rate, seconds)
    return [
        [name, "-", f"{rate * events:,.0f}", "1.00", f"{cost:.1f}", *_latency(peak), _statuses(peak)],
        [
            name,
            f"{TIMES * rate:,.0f}",
            f"{flood.accepted_per_second * events:,.0f}",
            f"{flood.accepted_per_second / rate:.2f}",
            "-",
            *_latency(flood),
            f"{_statuses(flood)}; {flood.without_hint} without Retry-After; {grown / 1e6:+,.0f} MB",
        ],
    ]


def _latency(answers: Answers) -> list[str]:
    late = f"{milliseconds(answers.lateness, 99):,.1f}"
    return [*(f"{milliseconds(answers.accepted, percentile):,.1f}" for percentile in (50, 99)), late]


def _statuses(answers: Answers) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in sorted(answers.statuses.items()) if count)
