"""What an operator sees of a process: metrics, traces, logs, and whether it is alive and ready.

```
metrics.py        Metrics: every `headrace_...` metric, declared once
tracing.py        Tracing: every span of the platform
  attributes.py     the only file with OpenTelemetry attribute names
  spans.py          spans around work in progress; links.py: EventLink, how a span points to events
  trace_context.py  reads and writes the strings `traceparent` and `tracestate`
  sampling.py       which spans are kept
  providers.py      whose provider makes them; exporting.py: the bounded way to the collector
logging.py        configure_logging, get_logger: JSON lines, or readable ones on a terminal
  redaction.py      what a log line may not say
health.py         Health: reasons against being ready or alive
  loop_monitor.py   LoopMonitor: names the handler that blocks the event loop
management.py     ManagementServer: /metrics and /health on a port and a thread of their own
routes.py         the same three paths for the application's port
```

**Why a thread of its own.** A slow synchronous call inside an async handler blocks the event loop. Were probes served
by the loop, liveness would fail, the pod would be killed, the batch redelivered, and the next owner would die too. So
the management port answers while the loop is blocked, `loop_blocked_seconds` names the handler, and only a loop that
has not ticked for 60 s counts as beyond repair. Liveness never looks at Kafka, Postgres or lag: an outage there would
restart every pod at once.

**What a sampled batch is.** One transaction applies events of many traces, so a batch is a trace of its own (`process
<topic>`) that links to each event's trace; emitted events carry the context of their source event. That is how one
request is followed: HTTP span -> link -> batch -> link -> the next batch. Whether a batch is kept is known only at its
end: its span is made then, with the true start time, and it is kept where one of its events is sampled, where something
failed, was parked or fenced, or else one time in a thousand. Rejected: a span per event (at 100,000 events/s it costs
more than the work), and a span opened at the start (the decision would come too early).

**What never appears.** Event data and secrets are in neither spans, logs nor metrics. Ids are in spans and logs, never
in a metric's label. A collector that is away or slow costs spans, never time: the queue is bounded, drops are counted.
"""
