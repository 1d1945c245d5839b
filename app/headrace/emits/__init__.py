"""What leaves after the commit: the events that handlers emit.

```
handler ─ emit() ─▶ Emitter ─▶ ledger row (same transaction as the effect) ─▶ commit ─▶ Relay ─▶ log
                                       │                                                  │
                                       └── a new owner publishes rows past `emitted_through` first
```
The claim's `emitted_through` says up to which ledger row the emits are in the log; a batch moves it along in the
update that it makes anyway. An emitted event's id is derived from the subscription, the identity of its cause and its
position among the cause's emits, so that an event published twice (a crash between publishing and marking) is
recognised downstream.

An emit whose record is larger than HEADRACE_KAFKA_MAX_RECORD_BYTES, headers included, fails its handler. If the log
still refuses one, because its topic takes less, that one becomes a dead letter `emit_refused`; all others leave. To
replay it publishes it again.

Rejected: a row per emit (an index and a DELETE for each), publishing before the commit (an event without its cause).
"""
