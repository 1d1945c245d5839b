"""Measures what an audit costs beside what it audits."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from rich.console import Console

from bench.auditing import measure, measure_under_load

console = Console(width=120)


def main(words: Sequence[str]) -> None:
    """Print what applying events and an audit of them take of a processor, and what an audit costs during load."""
    parser = argparse.ArgumentParser(prog="python -m bench audit", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--audits", type=int, default=5)
    parser.add_argument("--backlog", type=int, default=600_000, help="events to apply while audits are made")
    options = parser.parse_args(words)
    costs = asyncio.run(measure(options.events, options.audits))
    share = costs.audit / costs.applying
    console.print(
        f"{costs.events:,} events were applied in {costs.applying:.2f} s of processor time (service and Postgres, with "
        f"the start); one audit of them took {costs.audit:.2f} s, {share:.1%} of that, and ended after "
        f"{costs.audit_seconds:.2f} s. Once an hour it is {costs.audit / 3600:.3%} of a processor."
    )
    load = asyncio.run(measure_under_load(options.backlog))
    console.print(
        f"During load an event cost {load.quiet:.1f} microseconds of processor, and {load.audited:.1f} while one audit "
        f"followed the other, which leaves {load.ratio:.0%} of the throughput ({load.audits} audits, in every other of "
        f"{load.windows} windows). One audit cost {load.audit:.2f} s, as much as {load.audit / load.quiet * 1e6:,.0f} "
        f"events; once an hour that is {load.audit / 3600:.4%} of the throughput of one processor."
    )
