"""`make crash SEEDS=3`: runs seeds on real servers, shows how far it is, and prints how to run a failing one again."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.crash.faults import FAULTS
from tests.crash.load import SHARES
from tests.crash.orders import Figures, shop_on_kafka
from tests.crash.plan import Plan, draw
from tests.crash.points import POINTS
from tests.crash.report import write_report
from tests.crash.report.figures import again, figures
from tests.crash.run import Result, run
from tests.support.folders import keep_files_in_memory

FOLDER = Path("build/crash")

console = Console(soft_wrap=True, highlight=False)
COLUMNS = (
    TextColumn("seed {task.fields[seed]}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("{task.description}"),
)


def main() -> int:
    """Run what the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds are run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--events", type=int, default=60_000, help="events of each seed")
    parser.add_argument("--faults", type=int, default=24, help="faults of each seed")
    parser.add_argument("--minutes", type=float, default=30.0, help="when a seed begins no further fault")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="how many Kafka nodes")
    parser.add_argument("--workers", type=int, default=3, help="how many processes of the service")
    parser.add_argument("--kinds", nargs="*", default=[], choices=sorted(FAULTS), help="only faults of these kinds")
    parser.add_argument("--points", nargs="*", default=[], choices=sorted(POINTS), help="only at these crash points")
    parser.add_argument("--partitions", type=int, default=6, help="how many each topic has")
    parser.add_argument(
        "--shares", type=_shares, default={}, help="of events that ask for something: fail=0.1,echoes=0.5"
    )
    parser.add_argument("--patience", type=float, default=180.0, help="seconds until what waits is stuck")
    parser.add_argument("--report", type=Path, default=FOLDER, help="where the report goes")
    parser.add_argument(
        "--orders", type=int, help="place so many orders of the shop instead, while processes are killed"
    )
    parser.add_argument("--kills", type=int, default=20, help="how often, of --orders")
    options = parser.parse_args()
    keep_files_in_memory()
    if options.orders is not None:
        return _orders(options.orders, options.kills, options.workers, options.first)
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    plans = [
        draw(
            seed,
            events=options.events,
            faults=options.faults,
            workers=options.workers,
            brokers=options.brokers,
            partitions=options.partitions,
            kinds=options.kinds,
            points=options.points,
            shares=options.shares,
            patience=options.patience,
        )
        for seed in seeds
    ]
    results = []
    for plan in plans:
        results.append(_run(plan, options.minutes, options.report))
        page, as_json = write_report(results, options.report)
    console.print(f"report: {page} and {as_json}")
    return 0 if all(result.is_clean for result in results) else 1


def _shares(text: str) -> dict[str, float]:
    shares = {name: float(share) for name, _, share in (each.partition("=") for each in text.split(","))}
    if strange := shares.keys() - SHARES.keys():
        raise argparse.ArgumentTypeError(f"no event asks for {sorted(strange)}; name {', '.join(SHARES)}")
    return shares


def _run(plan: Plan, minutes: float, folder: Path) -> Result:
    with Progress(*COLUMNS, console=console) as progress:
        bar = progress.add_task("", total=plan.events, seed=plan.seed)

        def tell(what: str, faults: int, applied: int) -> None:
            text = f"fault {faults} of {len(plan.steps)}: {what}" if faults else what
            progress.update(bar, description=text, completed=min(applied, plan.events))
            if not console.is_terminal:
                console.print(f"seed {plan.seed}: {applied:,} applied; {text}")

        result = asyncio.run(run(plan, tell, minutes=minutes, kept=folder / f"seed-{plan.seed}"))
    _print(result, folder)
    return result


def _orders(orders: int, kills: int, workers: int, seed: int) -> int:
    """Place orders on a Kafka and a Postgres of their own; what does not agree is an error."""

    async def place() -> Figures:
        with tempfile.TemporaryDirectory(prefix="headrace-orders-") as folder:
            async with shop_on_kafka(Path(folder), workers, 6, seed, is_fast=True) as shop:
                shop.draw(orders)
                with Progress(*COLUMNS, console=console) as progress:
                    bar = progress.add_task("", total=orders, seed=seed)
                    return await shop.run(
                        kills, lambda ended, kills: progress.update(bar, completed=ended, description=f"{kills} kills")
                    )

    found = asyncio.run(place())
    console.print(
        f"{found.orders:,} orders in {found.seconds:,.0f} s, {found.kills} processes killed: "
        f"{found.confirmed:,} confirmed, {found.rejected:,} rejected; {found.money:,} of money and {found.goods:,} of "
        "goods have moved, as the confirmed orders say"
    )
    return 0


def _print(result: Result, folder: Path) -> None:
    found = figures(result)
    zombies = sum(found.zombie_rejections.values())
    console.print(
        f"seed {found.seed}: {found.events:,} events in {found.seconds:,.0f} s "
        f"({found.events_per_second:,.0f} a second), "
        f"{found.faults} faults, {zombies} proven refusals of zombies, {found.violation_count} violations"
    )
    for text in found.violations:
        console.print(f"  {text}", markup=False)
    if result.error:
        console.print(f"  the run could not be judged: {result.error}", markup=False)
    if not result.is_clean:
        console.print(f"again: {again(result)}", markup=False)
        console.print(f"logs: {folder / f'seed-{found.seed}'}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
