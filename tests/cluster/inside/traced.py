"""Sends one debit that overdraws a new wallet, with a trace of its own: `python traced.py TRACE_ID`."""

import json
import os
import sys
from urllib.request import Request, urlopen

trace_id = sys.argv[1]
event = {"specversion": "1.0", "id": trace_id, "source": "/cluster-test", "type": "wallet.debited"}
body = json.dumps(event | {"data": {"customer": f"traced-{trace_id}", "amount": 1}}).encode()
headers = {"Content-Type": "application/cloudevents+json", "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
with urlopen(Request(os.environ["SERVICE"] + "/events", body, headers), timeout=10) as answer:  # noqa: S310
    sys.stdout.write(answer.read().decode())
