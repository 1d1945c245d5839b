"""Schemas of event types beside the code: exported as JSON Schemas, and compared with what is declared now.

A folder holds a file for each type and version, `order.placed.v2.json`, which a team commits. `snapshot.py` writes and
reads it, `compatibility.py` tells whether all that an old schema accepts is accepted by a new one, and `check.py` says
what a change of an event type would do to events that are in the log already.

The comparison is of schemas and not of examples, so that it misses nothing; what it cannot compare it refuses.
"""
