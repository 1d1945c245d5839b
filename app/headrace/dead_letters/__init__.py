"""Dead letters: events that were given up on, with the reason, kept until a person replays or discards them.

```
open ──discard──▶ decided ──────────────────────────────────────▶ expired (HEADRACE_DEAD_LETTER_DAYS later)
  └────replay───▶ decided ──the owner puts it in a lane─▶ settled ─▶ expired
                     └── the owner refuses it ──▶ open, with the new error
```
A dead letter keeps the record as it was (bytes, headers, position). A decision is a mark on the row. If it is a replay,
the owner of the partition puts the event into its key's lane, in which it runs in order like any other. An event that
still cannot be read, and one whose identity was taken from another offset meanwhile, are refused and stay open. The
replay of an emitted event that the log refused (`emit_refused`) publishes it again.

An open letter may be edited: its record stays, and the edited value is replayed under the same identity. The window of
known events keeps the mark of what the log has, so that a copy of the record is a duplicate of its edit, no conflict.
An event that fails again after its replay is a new letter with the record, the edit and the history of the old one.

The owner of a partition writes dead letters in a batch's transaction, and reads what is to be replayed
(`ledger/dead_letters.py`). Here is a person's side, over HTTP and on the command line alike: `search.py` finds, counts
and reads, `edits.py` edits, `decisions.py` decides about one or many, and expires. `shown.py` says how a dead letter
looks to a person. Each act is kept with the letter (`history`). Many are decided in steps, in the order of the log, so
that replays of one key keep their order.
`reason` is text: a release may add new reasons, and nothing that reads dead letters depends on the list.

Who reads the log again has to know what was decided about its events, so an expired letter leaves its decision if it
says more than that the event was applied: of a discarded event its place and identity, of one that was edited before
its replay the edited value as well. The reason of such a row is `expired`; lists show it only to who asks for it.
"""
