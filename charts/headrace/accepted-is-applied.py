"""Sends an event to a running service and waits until its effect is read: what `helm test` runs."""

import json
import os
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

LIMIT_SECONDS = 60
ADDRESS = os.environ["SERVICE"]
EVENT = json.loads(os.environ["EVENT"])
EFFECT = json.loads(os.environ["EFFECT"])
EVENT_PATH = f"/events/{EVENT['type']}"


def ask(path, body=None):
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("API_KEY"):
        headers["X-API-Key"] = key
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(ADDRESS + path, data, headers), timeout=5) as answer:  # noqa: S310
        return json.load(answer)


def say(what):
    sys.stdout.write(f"{what}\n")


def count():
    try:
        return ask(EFFECT["path"])[EFFECT["field"]]
    except HTTPError as error:
        if error.code == 404:
            return 0
        raise


deadline = time.monotonic() + LIMIT_SECONDS
before = after = None
while time.monotonic() < deadline:
    try:
        if before is None:
            counted = count()
            say(f"answered: {ask(EVENT_PATH, EVENT['data'])}")
            before = counted
        after = count()
        if after > before:
            say(f"applied: {EFFECT['field']} went from {before} to {after}")
            sys.exit(0)
    except (HTTPError, URLError, TimeoutError) as error:
        say(f"not yet: {error}")
    time.sleep(0.5)
sys.exit(f"the event was not applied within {LIMIT_SECONDS} s: {EFFECT['path']} has {EFFECT['field']} = {after}")
