"""The deployment's own counters of events, if every process that applies them can be asked."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from headrace.load.http_client import HttpClient, NoAnswerError

OUTCOMES = {
    "headrace_events_applied_total": "applied",
    "headrace_events_skipped_total": "skipped",
    "headrace_events_parked_total": "parked",
    "headrace_events_dead_lettered_total": "dead",
}
CLAIMS = "headrace_claims_held"
STARTED = "process_start_time_seconds"


class Reading(NamedTuple):
    """The sums over all processes that were asked."""

    outcomes: Counter[str]
    claims: int
    started: float
    """The sum of their start times: the same processes have the same one."""


class Counters:
    """Asks the target's /metrics, and those that `--metrics` names."""

    def __init__(
        self, clients: list[HttpClient], subscriptions: tuple[str, ...], topics: frozenset[str], partitions: int
    ) -> None:
        """`partitions` is how many claims the processes must hold together, if all of them were asked."""
        self._clients = clients
        self._subscriptions = subscriptions
        self._topics = topics
        self._partitions = partitions

    async def read(self) -> Reading | None:
        """Return the sums over all processes; None if one of them could not be asked."""
        outcomes: Counter[str] = Counter()
        claims, started = 0, 0.0
        for client in self._clients:
            try:
                answer = await client.get("" if client.path.endswith("/metrics") else "/metrics")
            except NoAnswerError:
                return None
            if answer.status != 200:
                return None
            try:
                families = list(text_string_to_metric_families(answer.body.decode()))
            except ValueError:  # no page of metrics
                return None
            for family in families:
                for sample in family.samples:
                    is_ours = sample.labels.get("subscription") in self._subscriptions
                    if sample.name == STARTED:
                        started += sample.value
                    elif sample.name == CLAIMS and is_ours:
                        claims += int(sample.value)
                    elif sample.name in OUTCOMES and is_ours and sample.labels["topic"] in self._topics:
                        outcomes[OUTCOMES[sample.name]] += int(sample.value)
        return Reading(outcomes, claims, started)

    def since(self, before: Reading | None, after: Reading | None) -> Counter[str] | None:
        """Return what was counted in between; None unless the same processes were asked and hold every claim now."""
        if before is None or after is None or before.started != after.started or after.claims != self._partitions:
            return None
        return after.outcomes - before.outcomes
