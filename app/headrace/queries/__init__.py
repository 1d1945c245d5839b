"""The routes that read what the platform holds, and the few that steer it.

| route | file | answers from |
| --- | --- | --- |
| GET /state/{subscription}, .../{state}, .../{state}/{key} | states.py | Postgres |
| PUT, DELETE /state/{subscription}/{state}/{key} | state_changes.py | Postgres (state/hand.py) |
| GET /subscriptions, POST .../pause, .../resume | subscriptions.py | Postgres; the lag from the log (progress.py) |
| GET /subscriptions/{name}/lanes, POST .../retry | lanes.py | Postgres (lane_store.py) |
| GET /subscriptions/{name}/effects, POST .../retry | effects.py | Postgres (effects/listing.py) |
| GET /sagas, /sagas/{saga}, /sagas/{saga}/{key} | sagas.py | Postgres |
| GET /dead-letters, .../groups | dead_letters.py | Postgres (dead_letters/search.py) |
| POST /dead-letters/{decision} | dead_letter_decisions.py | Postgres (dead_letters/decisions.py) |
| POST /dead-letters/{id}/{decision}, .../edit | dead_letter_decisions.py | the same, and dead_letters/edits.py |
| POST /subscriptions/{name}/rewind, GET .../moves | rewind.py | Postgres and the log (rewind/) |
| POST /subscriptions/{name}/audit | audit.py | Postgres (audit/) |
| GET /events/stream | stream.py | the log (positions.py: from where) |
| GET /events/{id}, GET /events?id= | events.py | Postgres and the log (explain/) |
| GET of a projection's rows | projections.py (rows.py: the statement) | Postgres |
| GET /asyncapi.json | http/asyncapi.py | the declared types |

A pause, a retry or a decision is a row in Postgres; the owner of the partition acts on it. So any pod takes the
request, and none needs to know who owns what. Rows name a subscription by its group (`shop.wallets`); these routes show
and take its short name (`wallets`), and only what belongs to their own service.
"""

from fastapi import APIRouter

from headrace.http import asyncapi
from headrace.http.openapi import OF_EVERY_ROUTE
from headrace.http.problems import ProblemRoute
from headrace.queries import (
    audit,
    dead_letter_decisions,
    dead_letters,
    effects,
    events,
    lanes,
    rewind,
    sagas,
    state_changes,
    states,
    stream,
    subscriptions,
)

__all__ = ["build_router"]


def build_router() -> APIRouter:
    """Return the router of the routes that read and steer; one per platform."""
    router = APIRouter(tags=["queries"], route_class=ProblemRoute, responses=OF_EVERY_ROUTE)
    modules = (
        states, state_changes, audit, rewind, subscriptions, sagas, lanes, effects, dead_letters,
        dead_letter_decisions, stream, events, asyncapi,
    )  # fmt: skip
    for module in modules:
        module.add_routes(router)
    return router
