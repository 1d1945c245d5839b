"""Sends the events of a run over HTTP in an open loop until /tmp/stop appears, and prints what was answered.

The first line on stdout says that every lane has been accepted once, or has had no answer for too long; the second is
the report.

    python load.py RUN EVENTS_PER_SECOND

An event is due at its time, whatever became of those before it. Each lane sends what is due as one batch and repeats
it, with the same ids, until it is accepted: so the order of a customer is the one of the model, and at the end every
event that was due is accepted.
"""

import http.client
import json
import os
import pathlib
import sys
import threading
import time
from collections import Counter, deque
from urllib.parse import urlsplit

from model import LANES, events

STOP = pathlib.Path("/tmp/stop")  # noqa: S108
TICK_SECONDS = 0.1
PATIENCE_SECONDS = 240
SERVICE = urlsplit(os.environ["SERVICE"])


class Lane:
    """One sender: what is due and not accepted yet, and how it was answered."""

    def __init__(self):
        self.due = deque()
        self.answers = Counter()
        self.violations = []
        self.accepted = 0
        self.longest = 0.0
        self.is_last = False
        self._connection = None

    def run(self):
        """Send until everything that ever becomes due is accepted."""
        while self.due or not self.is_last:
            batch = [self.due.popleft() for _ in range(len(self.due))]
            if batch:
                self._send(batch)
            time.sleep(TICK_SECONDS)

    def _send(self, batch):
        body = json.dumps([event for _, event in batch]).encode()
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE_SECONDS:
            wait = self._post(body)
            if wait is None:
                self.accepted += len(batch)
                self.longest = max(self.longest, time.monotonic() - batch[0][0])
                return
            time.sleep(wait)
        self.violations.append(f"{len(batch)} events were not accepted within {PATIENCE_SECONDS} s")

    def _post(self, body):
        """Return None if the batch is accepted, else the seconds until the next attempt."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(SERVICE.hostname, SERVICE.port or 80, timeout=15)
            self._connection.request("POST", "/events", body, {"Content-Type": "application/cloudevents-batch+json"})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.answers[type(error).__name__] += 1
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return 0.2
        self.answers[str(answer.status)] += 1
        if answer.status == 202:
            return None
        later = answer.getheader("Retry-After")
        if answer.status not in (429, 503) or later is None:
            self.violations.append(f"{answer.status} without a reason to wait: {text[:200]!r}")
        return min(float(later or 1), 1.0)


def main():
    """Run the lanes, and print both lines."""
    run, rate = sys.argv[1], float(sys.argv[2])
    STOP.unlink(missing_ok=True)
    lanes = [Lane() for _ in range(LANES)]
    threads = [threading.Thread(target=lane.run) for lane in lanes]
    for thread in threads:
        thread.start()
    began, count = time.monotonic(), 0
    is_under_way = False
    for lane, event_id, customer, amount, is_credit in events(run, 10_000_000):
        is_late = time.monotonic() - began > PATIENCE_SECONDS
        if not is_under_way and (is_late or all(each.accepted for each in lanes)):
            is_under_way = True
            sys.stdout.write("under way\n")
            sys.stdout.flush()
        due_at = began + count / rate
        while (left := due_at - time.monotonic()) > 0 and not STOP.exists():
            time.sleep(min(left, TICK_SECONDS))
        if STOP.exists():
            break
        kind = "wallet.credited" if is_credit else "wallet.debited"
        envelope = {"specversion": "1.0", "id": event_id, "source": "/cluster-test", "type": kind}
        lanes[lane].due.append((due_at, envelope | {"data": {"customer": customer, "amount": amount}}))
        count += 1
    for lane in lanes:
        lane.is_last = True
    for thread in threads:
        thread.join()
    report = {
        "run": run,
        "count": count,
        "accepted": sum(lane.accepted for lane in lanes),
        "answers": dict(sum((lane.answers for lane in lanes), Counter())),
        "violations": [each for lane in lanes for each in lane.violations],
        "longest_seconds": max(lane.longest for lane in lanes),
        "seconds": time.monotonic() - began,
    }
    sys.stdout.write(json.dumps(report) + "\n")


main()
