"""What an operator sees of a process: metrics, traces, logs, and whether it is alive and ready.

```
metrics.py        Metrics: every `headrace_...` metric, declared once
tracing.py        Tracing: every span of the platform
  facts.py          what the engine tells the tracer, as plain values
  attributes.py     the only file with OpenTelemetry attribute names
  spans.py          spans around work in progress; links.py: how a span points to events
  trace_context.py  reads and writes the strings `traceparent` and `tracestate`
  sampling.py       which spans are kept
  providers.py      whose provider makes them; own_provider.py: ours
  recording.py      how a span of finished work is made: by a tracer, or at once
  exporting.py      the bounded queue to the collector
logging.py        configure_logging, get_logger: JSON lines, or readable ones on a terminal
  redaction.py      what a log entry leaves out; failures.py: what it says of a team's exceptions
  rate_limit.py     OncePerMinute: one entry a minute of each kind
health.py         Health: reasons against being ready or alive
  loop_monitor.py   LoopMonitor: names the handler that blocks the event loop
management.py     ManagementServer: /metrics and /health on a port and a thread of their own
routes.py         the same three paths for the application's port
```

**Why the management port has a thread of its own.** A slow synchronous call inside an async handler blocks the event
loop. If the loop served the probes, liveness would fail, the pod would be killed, the batch redelivered, and the next
owner killed as well. Liveness never looks at Kafka, Postgres or lag: an outage there would restart every pod at once.

**What a batch's span is.** One transaction applies events of many traces, so a batch is a trace of its own (`process
<topic>`) that links to the traces of its sampled events; emitted events carry the context of their source event. That
is how one request is followed: HTTP span -> link -> batch -> link -> the next batch. The span is made when the batch
has ended, with the true start time, and is kept if one of its events is sampled or something failed, and otherwise one
time in a thousand. Rejected: a span per event (at 100,000 events/s it costs more than the work), and a span that is
opened at the start (the sampler would decide too early).

**What of the SDK is not used.** Most spans are made when their work is over, and where nobody else looks at them: with
Headrace's own provider they are made at once, instead of being started, guarded by locks, cleaned and copied, which
takes half of the time. The sampler, the resource, the queue and the exporter are the SDK's, and so is all of it if an
application has installed a provider, or asks for limits of attributes. Tests compare both ways, span by span.

**What is left out.** Event data and secrets are in neither spans, logs nor metrics, except for what a team's own
exceptions say (HEADRACE_LOG_HANDLER_ERRORS). Ids are in spans and logs, never in a metric's label. A collector that is
away or slow costs spans, never time: the queue is bounded, and dropped spans are counted.
"""
