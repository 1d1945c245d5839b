"""Tasks: work of a route that goes on behind its answer, and survives a crash.

```
@events.task() ─▶ an internal event type with a field for each parameter, and an effect that calls the function
await tasks.add_task(send_mail, to="ada") ─▶ the event is published: the log has it before the route answers
tx.emit(send_mail.event(to="ada"))        ─▶ the same, together with the route's own SQL (emit() in a handler, too)
```
So a task has what an effect has: attempts, waits, a time limit, rates, dead letters, `Step`, a span; it is called at
least once. It has its own event type, since the function's parameters are its schema: if another version of the service
has another function of the name, what that cannot read becomes a dead letter, and no task is lost.

Rejected: running tasks in the process of the route and noting them in a table (a second queue beside the log, without
order, lanes and dead letters); pickled functions and arguments (they break with each deployment).
"""
