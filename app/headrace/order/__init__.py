"""Order: what a subscription does about events that come late, or before others that they follow.

```
events.subscription("prices", order=Latest(by="time"))      late: skipped as stale
events.subscription("orders", order=InSequence())           late: skipped as stale; early: held until the gap is filled

a run, before each handler:  ruling(order, what the key has, the event)        engine/order.py
   ├─ it is next ─────────▶ the handler, and the key's place moves on in the same transaction
   ├─ stale ──────────────▶ skipped, counted, known to the dedupe window
   └─ its gap is open ────▶ the key's lane: sorted by place, due when the gap has been open for `wait_seconds`
                               ├─ the missing event joins the lane: it runs at once
                               └─ the time is over: go on without the missing ones, or dead letters
```
**It is the subscription's choice**, not the event type's: of one stream, a price list wants the latest, a projection
every event in sequence, and an audit all of them as they come. `Latest` compares events of one type and key, so that a
new stock does not make a price stale. `InSequence` counts all events of a key that the subscription takes, since an
order that was placed, paid and shipped is numbered as one.

**A place is a number.** A `sequence` is text in CloudEvents, and "10" comes before "9" as text: it has to be 1 to 18
digits, and is compared as a number. A `time` is compared in microseconds. An event without a place, or with another
kind of `sequence`, is a dead letter that says so. Only events of internal types, such as timers of the service itself,
have no place and run as they come.

**What the key has** is a state of its own beside the handler's (`state.py`): it is read, written, undone, rewound and
compared with the versions of other owners as any state is, and commits with what the handler did. An event whose
handler fails moves nothing. So a dead letter leaves a gap: the key waits for its replay as for an event that has not
come yet. One that the handler skips is done, and leaves none. One whose turn has not come is not to blame for owners
that died, since its handler was not called: it is held.

**Held events are parked** in the lane of their key, so that they survive whatever lanes survive: deaths, rebalances and
a restored database. Only one thing is different: the number of a parked event begins with its place, so that reading a
lane in order reads the sequence (`numbers.py`). A lane that waits for a gap is one whose error is a `SequenceGapError`;
its `due` is the end of the wait. A new owner looks at each of them once. What has another number, since it was parked
before the order was declared, gets its own when a run finds that it, or the head before it, has to wait. An operator's
retry of such a lane goes on without the missing events.

**The wait** begins when the gap is found, by the clock of the owner, and each gap has its own. It is not over while the
log is not read: after a pause, an outage, or a time without an owner, what is missing may be the next record, so what
came meanwhile is read first, or for `wait_seconds` more. An event that runs without those before it, and fails, has
waited for all of its attempts: the place of the key moves on to it. An event that comes when its gap was passed over is
stale. A replay of a dead letter is applied all the same, since a person asked for it.

Equal places: two events with one `sequence` are one too many, and the second is stale; two with one `time` are common,
and come in the order of the log.

Rejected: the held events in the state (a state would grow with them, and a run would have to make items of them), a
timer for each gap (the lane has a time already), an order on the event type (see above), batch handlers (a list may
hold both the event that makes another stale and that one, and is undone as a whole), projections (their rows have
columns, which a handler can compare).
"""
