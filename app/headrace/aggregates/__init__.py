"""Aggregates: things that are made of their events, as a team declares them. They know nothing of a database.

`aggregate.py` is what a team subclasses, `states.py` how a state is kept in a snapshot. `store/` loads and saves them.
"""

from headrace.aggregates.aggregate import Aggregate, applies

__all__ = ["Aggregate", "applies"]
