"""Publishing from code: what a route, a task or a script sends, with the checks and the promise of the HTTP door.

```
POST /events ─▶ ingest/ ─┐
                         ├─▶ checking.py (type, schema, key) ─▶ sending.py (the log has it) ─▶ ids and positions
events.publish(event) ───┘
```
`publisher.py` makes events of a team's objects: it writes them as JSON and reads them back by their type, so that an
object that was changed behind Pydantic's back is refused here and not by the handlers. `client.py` opens a publisher
without a server, `dependency.py` gives it to routes, and `tasks.py` lets them leave work to the service
(`headrace.tasks`).

What survives a crash: what publish() has returned. It has no part in a transaction of the caller; the outbox has.

Rejected: publishing in the background, which returns before the log has the event; a second set of methods for
synchronous code (`anyio.from_thread.run` is one line).
"""
