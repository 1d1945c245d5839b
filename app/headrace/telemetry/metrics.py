"""Every metric of the platform, declared once: name, kind, labels, buckets and meaning stand in the class body.

Rules: base units, `_total` for counters; no id, key, customer or exception text in a label. Only gauges carry a
partition, and the owner removes them when the partition leaves (`forget_partition`): a counter with a partition would
lose its last increments at each move. Callers keep the children of `.labels(...)`, which costs about a microsecond.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
WORK_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
AGE_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
BATCH_EVENTS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
STALL_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

MAX_ERROR_LABELS = 20
OTHER = "other"


class Row(NamedTuple):
    """What stands beside a metric's name: its labels, its help text, and a histogram's buckets."""

    labels: str
    help: str
    buckets: tuple[float, ...] | None = None


class Metric(NamedTuple):
    """One metric of the catalogue; `name` is the attribute's, without the prefix `headrace_`."""

    name: str
    kind: type[Counter | Gauge | Histogram]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] | None


class Metrics:
    """The metrics of one process: `metrics.events_applied_total.labels(subscription=..., topic=..., type=...)`."""

    ingest_accepted_total: Annotated[Counter, Row("topic type", "Events that the log has, from HTTP and code")]
    ingest_rejected_total: Annotated[Counter, Row("reason", "Events refused")]
    ingest_duration_seconds: Annotated[
        Histogram, Row("mode outcome", "A request, from its body to the answer", REQUEST_SECONDS)
    ]
    ingest_batch_events: Annotated[Histogram, Row("mode", "Events per request", BATCH_EVENTS)]

    log_produce_duration_seconds: Annotated[
        Histogram, Row("topic outcome", "From send to acknowledgement", REQUEST_SECONDS)
    ]
    log_produce_in_flight: Annotated[Gauge, Row("topic", "Records not yet acknowledged")]
    log_fetched_records_total: Annotated[Counter, Row("subscription topic", "Records read from the log")]
    log_fetched_bytes_total: Annotated[Counter, Row("subscription topic", "Bytes read from the log")]
    topic_partitions: Annotated[Gauge, Row("topic", "Partitions of the topic as this process sees it")]

    events_applied_total: Annotated[Counter, Row("subscription topic type", "Events whose effect is committed")]
    events_skipped_total: Annotated[Counter, Row("subscription topic reason", "Events seen, with nothing to do")]
    events_parked_total: Annotated[Counter, Row("subscription topic reason", "Events put into their key's lane")]
    events_dead_lettered_total: Annotated[Counter, Row("subscription topic reason", "Events given up on")]
    events_stray_total: Annotated[
        Counter, Row("subscription topic", "Records on a partition that murmur2 of their key would not choose")
    ]
    events_conflict_total: Annotated[
        Counter, Row("subscription topic", "Events with the identity of an earlier one and another payload")
    ]
    event_age_seconds: Annotated[
        Histogram, Row("subscription", "From the log's taking an event in to the commit of its effect", AGE_SECONDS)
    ]

    batch_events: Annotated[Histogram, Row("subscription", "Events per committed batch", BATCH_EVENTS)]
    batch_duration_seconds: Annotated[
        Histogram, Row("subscription outcome", "A batch, from decode to commit", WORK_SECONDS)
    ]
    batch_commit_duration_seconds: Annotated[
        Histogram,
        Row(
            "subscription",
            "COMMIT alone; of small batches, the statement that commits them together, and the wait for it",
            WORK_SECONDS,
        ),
    ]
    batch_reruns_total: Annotated[Counter, Row("subscription cause", "Batches run again")]
    batch_shrunk_total: Annotated[
        Counter, Row("subscription reason", "Batches made smaller, as the data, a timeout or the memory asked for it")
    ]
    worker_abandoned_total: Annotated[
        Counter, Row("subscription reason", "Handlers and batches given up on, since they did not return")
    ]

    lag_records: Annotated[Gauge, Row("subscription topic partition", "End of the log minus the next offset")]
    lag_held_records: Annotated[
        Gauge,
        Row("subscription topic partition", "The part of the lag behind a producer's open transaction"),
    ]
    oldest_pending_seconds: Annotated[
        Gauge, Row("subscription topic partition", "Age of the oldest record without an outcome; 0 if none")
    ]
    next_offset: Annotated[Gauge, Row("subscription topic partition", "The claim's next offset")]
    claim_epoch: Annotated[Gauge, Row("subscription topic partition", "The claim's epoch")]
    claims_held: Annotated[Gauge, Row("subscription", "Partitions that this process owns")]
    claim_crash_suspects: Annotated[
        Gauge, Row("subscription", "Owned partitions that take one event at a time, since owners died at one offset")
    ]
    claim_duration_seconds: Annotated[
        Histogram, Row("subscription", "From assignment to ready for a batch", WORK_SECONDS)
    ]
    claim_fenced_total: Annotated[Counter, Row("subscription", "Batches refused, since another owner is at work")]
    rebalances_total: Annotated[
        Counter, Row("subscription cause", "joined: assigned; revoked: partitions left; lost: taken for dead")
    ]
    rebalance_standstill_seconds: Annotated[
        Histogram,
        Row("subscription", "Of a partition that moves: from its release to its next owner", WORK_SECONDS),
    ]
    client_recreated_total: Annotated[Counter, Row("subscription reason", "Clients of the log that were replaced")]
    subscription_paused: Annotated[Gauge, Row("subscription", "1 while paused")]

    handler_outage: Annotated[
        Gauge,
        Row("subscription handler", "1 if it meets an outage, and partitions wait"),
    ]
    lane_keys: Annotated[Gauge, Row("subscription topic", "Keys held back, of owned partitions")]
    lane_held_keys: Annotated[Gauge, Row("subscription topic", "Keys held until an operator acts, of owned partitions")]
    lane_events: Annotated[Gauge, Row("subscription topic", "Events in lanes, of owned partitions")]
    lane_oldest_seconds: Annotated[Gauge, Row("subscription topic", "Age of the oldest event in a lane")]
    lane_full_partitions: Annotated[Gauge, Row("subscription", "Owned partitions that wait, since too much is parked")]
    lane_gap_keys: Annotated[Gauge, Row("subscription topic", "Keys that wait for a missing event of their sequence")]
    sequence_gaps_total: Annotated[
        Counter, Row("subscription end", "Events that waited in vain for others before them")
    ]
    lane_released_total: Annotated[Counter, Row("subscription outcome", "Events that left a lane")]
    dead_letters_open: Annotated[Gauge, Row("subscription reason", "Dead letters without a decision")]
    dead_letters_decided_total: Annotated[Counter, Row("subscription decision", "Dead letters decided on")]

    emits_committed_total: Annotated[Counter, Row("subscription topic", "Emitted events that are committed")]
    emits_published_total: Annotated[Counter, Row("subscription topic", "Emitted events that the log has")]
    emits_republished_total: Annotated[Counter, Row("subscription topic", "Emits published again by a new owner")]
    emits_refused_total: Annotated[Counter, Row("subscription topic", "Emitted events that the log will never take")]
    emits_pending: Annotated[Gauge, Row("subscription", "Emits committed and not yet acknowledged by the log")]
    emits_oldest_pending_seconds: Annotated[Gauge, Row("subscription", "Age of the oldest such emit")]

    sagas_open: Annotated[Gauge, Row("saga", "Sagas that have not ended, from Postgres: use max")]
    saga_oldest_open_seconds: Annotated[Gauge, Row("saga", "Age of the oldest such saga; 0 if none is open")]
    sagas_ended_total: Annotated[
        Counter, Row("saga outcome", "Sagas that have ended: completed, compensated or timed_out")
    ]
    saga_duration_seconds: Annotated[Histogram, Row("saga outcome", "From a saga's start to its end", AGE_SECONDS)]

    timers_pending: Annotated[
        Gauge, Row("subscription", "Timers that wait, of owned partitions; counted once a minute")
    ]
    timers_due: Annotated[Gauge, Row("subscription", "Timers that are due and have not fired, of owned partitions")]
    timers_fired_total: Annotated[Counter, Row("subscription", "Timers whose event was emitted")]
    timers_late_seconds: Annotated[Histogram, Row("subscription", "From a timer's time to its firing", AGE_SECONDS)]

    windows_closed_total: Annotated[Counter, Row("subscription", "Windows that have closed")]
    windows_late_total: Annotated[
        Counter, Row("subscription", "Events that came after one of their windows had closed")
    ]
    states_expired_total: Annotated[
        Counter, Row("subscription state", "Rows of states that were removed, since their time was over")
    ]

    effects_pending: Annotated[Gauge, Row("subscription", "Calls of effects that are not done, of owned partitions")]
    effects_in_flight: Annotated[Gauge, Row("subscription", "Calls of effects under way in this process")]
    effects_waiting: Annotated[Gauge, Row("subscription", "Calls of effects that have failed and wait for a retry")]
    effects_ended_total: Annotated[
        Counter, Row("subscription effect outcome", "Calls of effects that are done, or given_up")
    ]

    outbox_pending: Annotated[Gauge, Row("", "Events of the service's outbox that wait, from Postgres: use max")]
    outbox_oldest_pending_seconds: Annotated[Gauge, Row("", "Age of the oldest such event; 0 when none waits")]
    outbox_published_total: Annotated[Counter, Row("topic", "Events of the outbox that the log has")]
    outbox_refused_total: Annotated[Counter, Row("topic", "Events of the outbox that the log will never take")]

    store_appended_total: Annotated[
        Counter, Row("stream", "Events appended to streams, also in transactions that were rolled back afterwards")
    ]
    store_conflicts_total: Annotated[Counter, Row("stream", "Appends refused, since the stream had another version")]
    store_loaded_events: Annotated[
        Histogram, Row("stream", "Events read to load an aggregate, behind its snapshot", BATCH_EVENTS)
    ]

    projection_rebuild_ratio: Annotated[
        Gauge, Row("projection", "How much of the log a rebuild has applied, from Postgres: use max; none if none runs")
    ]
    projection_rebuild_remaining_records: Annotated[
        Gauge, Row("projection", "Records that a rebuild has to apply, from Postgres: use max; none if none runs")
    ]

    handler_duration_seconds: Annotated[
        Histogram, Row("subscription handler kind", "One call of a handler", WORK_SECONDS)
    ]
    handler_errors_total: Annotated[Counter, Row("subscription handler error", "Calls that raised")]
    handler_running_seconds: Annotated[Gauge, Row("subscription", "Age of the oldest running call; 0 if none runs")]
    handler_threads_abandoned: Annotated[
        Gauge, Row("subscription", "Threads that a worker left behind, since their handler has not returned")
    ]
    handler_killed_process_total: Annotated[
        Counter, Row("subscription handler", "Events during whose handling the process died each time")
    ]
    loop_blocked_seconds: Annotated[
        Histogram, Row("handler", "Stalls of the event loop over 0.1 s, by the handler that caused them", STALL_SECONDS)
    ]

    db_pool_connections: Annotated[Gauge, Row("pool state", "Connections to Postgres")]
    db_pool_size: Annotated[Gauge, Row("pool", "The most connections of the pool")]
    db_pool_wait_seconds: Annotated[Histogram, Row("pool", "Time to get a connection", REQUEST_SECONDS)]
    db_errors_total: Annotated[Counter, Row("kind", "Failures of Postgres")]
    db_commit_unknown_total: Annotated[
        Counter, Row("subscription resolved", "Connections lost in COMMIT, by what the claim showed afterwards")
    ]
    dedupe_window_seconds: Annotated[Gauge, Row("subscription", "Time that the dedupe window spans")]
    dedupe_window_ids: Annotated[Gauge, Row("subscription", "Event ids in memory")]
    audit_mismatches: Annotated[
        Gauge, Row("subscription check", "What the last audit found wrong; anything but 0 is a broken promise")
    ]
    audit_last_run_timestamp_seconds: Annotated[Gauge, Row("subscription", "When the last audit came to its end")]
    schema_version: Annotated[Gauge, Row("phase", "Version of the database's schema")]
    schema_version_expected: Annotated[Gauge, Row("phase", "Version of the schema that this code needs")]

    drain_duration_seconds: Annotated[
        Histogram, Row("", "From the request to stop to the end of the drain", WORK_SECONDS)
    ]
    drains_total: Annotated[Counter, Row("outcome", "Drains")]
    trace_spans_dropped_total: Annotated[Counter, Row("reason", "Spans that did not reach the collector")]
    build_info: Annotated[Gauge, Row("version python role", "1; the labels say what runs")]

    def __init__(self, registry: CollectorRegistry | None = None, *, version: str, role: str) -> None:
        """Register everything, and the metrics of the process and its garbage collector, in a registry of its own.

        Series `..._created` are switched off for the whole process: they double the number of series for little use.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client gives it no types
        self.registry = CollectorRegistry() if registry is None else registry
        for metric in catalogue():
            options: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
            setattr(
                self,
                metric.name,
                metric.kind(f"headrace_{metric.name}", metric.help, metric.labels, registry=self.registry, **options),
            )
        if registry is None:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self.build_info.labels(version=version, python=platform.python_version(), role=role).set(1)
        self._errors: dict[str, set[str]] = {}

    def error_label(self, handler: str, error: BaseException) -> str:
        """Return the class name of an error; `other` beyond the first 20 of a handler."""
        names = self._errors.setdefault(handler, set())
        name = type(error).__name__
        if name not in names:
            if len(names) >= MAX_ERROR_LABELS:
                return OTHER
            names.add(name)
        return name

    def forget_partition(self, subscription: str, topic: str, partition: int) -> None:
        """Remove the gauges of a partition that left; its new owner shows them."""
        for name in PARTITION_GAUGES:
            getattr(self, name).remove(subscription, topic, str(partition))

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Return the exposition and its content type: OpenMetrics (with exemplars) if it is asked for, else text."""
        encode, content_type = choose_encoder(accept or "")
        return encode(self.registry), content_type


@lru_cache(4_096)  # `labels` costs as much as to count
def child(metric: Counter | Gauge | Histogram, **labels: str) -> Any:
    """Return what counts for these labels, looked up once: for a metric of which no child is ever removed."""
    return metric.labels(**labels)


def catalogue() -> Iterator[Metric]:
    """Yield every metric, in the order of the class body."""
    for name, hint in get_type_hints(Metrics, include_extras=True).items():
        kind, row = get_args(hint)
        yield Metric(name, kind, tuple(row.labels.split()), row.help, row.buckets)


PARTITION_GAUGES = tuple(metric.name for metric in catalogue() if "partition" in metric.labels)
