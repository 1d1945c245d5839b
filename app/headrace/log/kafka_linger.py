"""Lets the broker gather a fetch while the batch before it is applied, so that the next batch is not a single event.

aiokafka asks for more as soon as it has given away what it had, and a broker answers with the first record that comes.
Under a steady rate that is one event. All that come while the batch before is being applied would have to wait for
another batch after it: every second batch would hold one event, at the full cost of a transaction.

So the request that is sent as a batch begins is answered when the batch is expected to end, which is as long as the one
before took. Nobody waits for it: it is the time in which nothing more could have been applied.
tests/unit/log/test_kafka_linger.py fails if aiokafka's side of this changes.
"""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher

GATHERED_BYTES = 65_536
"""So much is sent at once: a batch of it is worth its transaction."""
MOST_SECONDS = 0.025
LEAST_SECONDS = 0.002
"""A broker's clock is no finer."""


class LingeringFetcher(Fetcher):  # type: ignore[misc]
    """aiokafka's fetcher, of which one request can be told to wait for more."""

    _long_poll_ms: int

    def linger(self, seconds: float) -> None:
        """Let the next request be answered after so many seconds, or as soon as it has `GATHERED_BYTES`."""
        if seconds >= LEAST_SECONDS:
            self._fetch_min_bytes = GATHERED_BYTES
            self._fetch_max_wait_ms = round(min(seconds, MOST_SECONDS) * 1_000)

    def _get_actions_per_node(self, assignment: Any) -> Any:
        actions = super()._get_actions_per_node(assignment)
        if actions[0]:  # requests, which are sent now; those that follow wait for the first record
            self._fetch_min_bytes, self._fetch_max_wait_ms = 1, self._long_poll_ms
        return actions


def let_linger(consumer: AIOKafkaConsumer) -> LingeringFetcher:
    """Return the fetcher of a consumer, which has been started, as one that can linger."""
    fetcher: LingeringFetcher = consumer._fetcher
    fetcher._long_poll_ms = fetcher._fetch_max_wait_ms
    fetcher.__class__ = LingeringFetcher
    return fetcher
