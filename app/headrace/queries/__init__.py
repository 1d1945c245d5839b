"""The routes that read what the platform holds, and the few that steer it.

| route | file | answers from |
| --- | --- | --- |
| GET /state/{subscription}/{state}/{key} | states.py | Postgres |
| GET /subscriptions, POST .../pause, .../resume | subscriptions.py | Postgres; the lag from the log |
| GET /dead-letters, POST .../replay, .../discard | dead_letters.py | Postgres |
| GET /events/stream | stream.py | the log, from now on |
| GET /asyncapi.json | asyncapi.py | the declared types |

A pause or a decision is a row in Postgres; the owner of the partition acts on it. So any pod takes the request, and
none needs to know who owns what.
"""

from fastapi import APIRouter

from headrace.problems import ProblemRoute
from headrace.queries import asyncapi, dead_letters, states, stream, subscriptions

__all__ = ["build_router"]


def build_router() -> APIRouter:
    """Return the router of the routes that read and steer; one per platform."""
    router = APIRouter(tags=["queries"], route_class=ProblemRoute)
    for module in (states, subscriptions, dead_letters, stream, asyncapi):
        module.add_routes(router)
    return router
