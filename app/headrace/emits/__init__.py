"""What leaves after the commit: the events that handlers emit.

```
handler ─ emit() ─▶ Emitter ─▶ ledger row (same transaction as the effect) ─▶ commit ─▶ Relay ─▶ log
                                       │                                                  │
                                       └── a new owner publishes rows past `emitted_through` first
```
The claim's `emitted_through` says up to which ledger row the emits are in the log; a batch moves it along in the
update it makes anyway. An id is derived from (subscription, source event, position), so that an event published twice
(a crash between publishing and marking) is recognised downstream. Rejected: a row per emit (an index and a DELETE for
each), publishing before the commit (an event without its cause).
"""
