"""Measures what an audit costs beside what it audits."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from rich.console import Console

from bench.auditing import measure

console = Console(width=120)


def main(words: Sequence[str]) -> None:
    """Print the processor time of applying some events, and of one audit of them."""
    parser = argparse.ArgumentParser(prog="python -m bench audit", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--audits", type=int, default=5)
    options = parser.parse_args(words)
    costs = asyncio.run(measure(options.events, options.audits))
    share = costs.audit / costs.applying
    console.print(
        f"{costs.events:,} events were applied in {costs.applying:.2f} s of processor time (service and Postgres, with "
        f"the start); one audit of them took {costs.audit:.2f} s, {share:.1%} of that, and ended after "
        f"{costs.audit_seconds:.2f} s. Once an hour it is {costs.audit / 3600:.3%} of a processor."
    )
