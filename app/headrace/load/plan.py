"""What a run will do, decided and said before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from headrace.load.schedule import Arrivals
from headrace.load.workload import Kind
from headrace.settings import LOOPBACK


@dataclass(frozen=True)
class Plan:
    """Everything that is fixed before the first event is sent."""

    target: str
    service: str
    run: str
    kinds: tuple[Kind, ...]
    keys: int
    sets_key: bool
    state: tuple[str, str] | None
    """The subscription and the state that shows an event's effect."""
    subscriptions: tuple[str, ...]
    brokers: tuple[str, ...]
    """Where events go if not over HTTP."""
    arrivals: Arrivals
    rates: tuple[float, ...]
    seconds: float
    warm_up_seconds: float
    batch: int
    connections: int
    probes_per_second: float
    p99_milliseconds: float
    honours_retry_after: bool
    max_events: int
    drain_seconds: float
    seed: int
    metrics: tuple[str, ...]

    @property
    def topics(self) -> frozenset[str]:
        """The topics of the workload's types."""
        return frozenset(kind.topic for kind in self.kinds)

    @property
    def is_on_this_machine(self) -> bool:
        """True if nothing leaves this machine."""
        hosts = [urlsplit(self.target).hostname, *(broker.rpartition(":")[0].strip("[]") for broker in self.brokers)]
        return all(host in LOOPBACK for host in hosts)

    def sentences(self) -> list[str]:
        """Say what the run will do."""
        types = " and ".join(kind.type for kind in self.kinds)
        way = f"to Kafka at {', '.join(self.brokers)}" if self.brokers else f"to {self.target}"
        first, last = self.rates[0], self.rates[-1]
        rate = f"{first:,.0f} events/s" if len(self.rates) == 1 else f"{first:,.0f} to at most {last:,.0f} events/s"
        steps = "one step" if len(self.rates) == 1 else f"up to {len(self.rates)} steps"
        said = [
            f"{types} of {self.service} go {way}, and nothing goes anywhere else.",
            f"{rate}, {self.arrivals} arrivals, {steps} of {self.seconds:g} s after {self.warm_up_seconds:g} s of "
            f"warm-up, {self.batch} to a request; the run ends at the first rate that is not held, and after "
            f"{self.max_events:,} events at the latest.",
            f"{self.keys:,} keys that begin with {self.run}-: their states stay in the database.",
        ]
        if self.state is None:
            said.append("No state is named (--state), so only positions, lanes and dead letters are checked.")
        else:
            subscription, state = self.state
            said.append(f"The effect is read at GET /state/{subscription}/{state}/KEY.")
        return said
