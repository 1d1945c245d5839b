"""Dead letters: events that were given up on, with the reason, kept until a person replays or discards them.

A dead letter keeps the record as it was (bytes, headers, position). A decision is a mark on the row; the owner of the
partition takes a replay up: it puts the event into its key's lane, where it runs in order like any other.
"""
