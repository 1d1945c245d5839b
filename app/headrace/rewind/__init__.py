"""Goes back: a person lets a subscription apply a part of the log again, or sees what that would change.

```
plan.py      where to, what is lost, what is made anew ── or a refusal, in one sentence; changes nothing
   │
rewind.py    hold and fence ─▶ states of then (states.py) ─▶ one transaction: all below, and the claim ─▶ resume
   └ write.py, window.py

dry_run.py   the same handlers over the same events, beside the service; compares, and writes nothing (difference.py)
   ├ rehearsal.py: today's handlers over a part of the log, in memory
   └ by_time.py: several topics in one order
```
**The promise of a rewind.** Afterwards the subscription is as if it had come to that offset just now: what its states,
lanes, dead letters, timers and sagas hold of later events is gone, and its dedupe window knows earlier ones only. All
of it changes in one transaction with the claim, or nothing does. Then the owner of the partition applies the rest of
the log, with today's code, in batches as ever.

**States are reset, remade, or it is refused.** Nobody keeps what a state was at an offset. At the place where the
subscription began there was none: its states are deleted. Anywhere later, the keys that have events behind the place
are remade: today's handlers run in memory over all earlier events of these keys, without what was given up on or waits
in a lane. All other keys stay as they are, since nothing of theirs is applied again. So the log has to hold every event
since the subscription began. If retention has taken the first ones, if a handler raises now at an event that was
applied then, or if the order of events cannot be known (keys that have moved to added partitions, another log, a key in
sequence of which an event came before its turn), it is refused, and nothing was changed. What people wrote by hand is
not in the log, and is lost; the plan says how many states that are. A subscription without states can go to wherever
its log has records.

**Several topics are refused if there are states.** Their owners apply each topic by itself. The first time an answer
came behind its question, because somebody had to answer; the second time both are in the log, and the answer may be
first: a saga would wait for ever for what was skipped. A dry run has the order of the log's times, which is near to
that of the first run, and says so; it changes nothing, so that a person can judge.

**In sequence**, a key whose events stand in the log by their numbers was applied so. Where one came before its turn,
the wait for the others may have been over when they came, by the clock of an owner who is gone. So such a key is
refused, or left out of a dry run.

**What a handler did elsewhere** a rewind cannot take back. SQL of its own is refused, unless the person says that it
may run again. Events that it emits have the same ids as the first time (they follow from the event and the place of the
emit), so that subscriptions drop them as duplicates while their dedupe windows reach that far back. Effects are not
started again: the claim's move keeps where the second run ends, and which events before that never ran
(`ledger/moves.py`, asked by the engine). With `effects` they are.

**Dead letters** behind the place lose their meaning, since their records are read again; they stay visible with the
decision `rewind`. What a person has discarded stays out: its identity is kept in the window; if more events come
before it than that holds, the rewind is refused. What was edited is met again as the log has it. **Timers** are those
of then: set by events of the remade keys before the place, and not cancelled; one that had fired fires again, under its
first id. Schedules go on.

**Fenced like any change of a claim.** First the subscription is held and the claims lose their tokens, in one
transaction: no batch that has read an old state can commit, and no new one begins. The last transaction compares where
each claim stands. The hold is not the operator's pause, which keeps the last word: that counts when the hold has ended.
A process that dies in between leaves a held subscription of which nothing was changed, and a row that names it: `GET
/subscriptions` and `headrace doctor` say so, and whether its session lives. A person rewinds once more, which takes
that up, or resumes. One session at a time rewinds a subscription (an advisory lock), and a plan that was made before
another one had ended is refused: it may lead forward.

**The promise of a dry run.** It reads: the log, and Postgres in read-only transactions. It calls handlers, which may do
what they like elsewhere; those that take a Transaction are refused. States are compared in one snapshot with the claims
that they belong to.

Assumed: a key is on one partition, as everywhere. Handlers of an ordinary subscription that read a clock or a random
number make other states when they run again; so does the history of a saga.

Rejected: copies of states at intervals (every batch would pay for what hardly anybody asks for); inverse changes (a
handler is any function); a second subscription under another name (its states are not those that people ask for, and
its effects fire); to skip the emits of a second run (some may be new, and which ones only their ids tell).
"""
