"""Dead letters: events that were given up on, with the reason, kept until a person replays or discards them.

```
open ──discard──▶ decided ─────────────────────────────────────▶ expired (HEADRACE_DEAD_LETTER_DAYS later)
  └────replay───▶ decided ──the owner takes it up──▶ settled ──▶ expired
                     └── it still cannot be read ──▶ open, with the new error
```
A dead letter keeps the record as it was (bytes, headers, position). A decision is a mark on the row; the owner of the
partition takes up a replay: it puts the event into its key's lane, where it runs in order like any other.

`store.py` is the owner's side: it writes dead letters and takes up replays. `decisions.py` is a person's side: find,
read, decide and expire, over HTTP and on the command line alike. `shown.py` says how a dead letter looks to a person.
`reason` is text: a release may add new reasons, and nothing that reads dead letters depends on the list.
"""
