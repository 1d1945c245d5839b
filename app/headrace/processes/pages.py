"""The management port of a group: what the processes say on theirs, put together."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from headrace.telemetry.management import JSON, NOT_FOUND, Page

ASK_SECONDS = 2.0
"""How long a process has to answer; one that does not is left out of the metrics, and counts as not ready."""
STARTING = {"reasons": ["starting"]}
UNREACHABLE = {"reasons": ["unreachable"]}
LABEL = "process"
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_END = "# EOF"


class Answer(NamedTuple):
    """What a process answered."""

    status: int
    content_type: str
    body: str


class GroupPages:
    """Answers for all processes of a group; any thread may ask. `ports` is replaced as a whole by the group."""

    def __init__(self, processes: int) -> None:
        self.ports: Mapping[int, int | None] = dict.fromkeys(range(processes))
        """The management port of each process; None while it is not up."""
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="headrace-group-pages")

    def answer(self, path: str, query: Mapping[str, list[str]], accept: str | None) -> Page:
        """Return the page; see `telemetry.management`."""
        if path == "/metrics":
            answers = self._ask(path, accept)
            kind = next((each.content_type for each in answers.values() if each is not None), "text/plain")
            bodies = {number: each.body for number, each in answers.items() if each is not None and each.status == 200}
            return Page(200, kind, together(bodies).encode())
        if path == "/health/ready":
            return _report("ready", self._ask(path, None))
        if path == "/health/live":
            is_up = any(port is not None for port in self.ports.values())
            reasons = STARTING["reasons"] if "startup" in query and not is_up else []
            return Page(503 if reasons else 200, JSON, json.dumps({"live": not reasons, "reasons": reasons}).encode())
        return NOT_FOUND

    def close(self) -> None:
        """Ask nobody any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, path: str, accept: str | None) -> dict[int, Answer | None]:
        ports = self.ports
        answers = self._threads.map(lambda port: None if port is None else _ask(port, path, accept), ports.values())
        return dict(zip(ports, answers, strict=True))


def _ask(port: int, path: str, accept: str | None) -> Answer | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", path, headers={"Accept": accept} if accept else {})
        response = connection.getresponse()
        return Answer(response.status, response.getheader("Content-Type", "text/plain"), response.read().decode())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _report(question: str, answers: Mapping[int, Answer | None]) -> Page:
    """Return whether one of the processes is, and what each says."""
    is_true = any(each is not None and each.status == 200 for each in answers.values())
    each = {str(number): UNREACHABLE if one is None else json.loads(one.body) for number, one in answers.items()}
    reasons = [] if is_true else sorted({reason for one in each.values() for reason in one["reasons"]})
    body = {question: is_true, "reasons": reasons, "processes": each}
    return Page(200 if is_true else 503, JSON, json.dumps(body).encode())


def together(bodies: Mapping[int, str]) -> str:
    """Return one exposition of several, in the text format or OpenMetrics; each sample says which process it is of."""
    families: dict[str, list[str]] = {}
    ends = False
    for number, body in bodies.items():
        samples: list[str] = []
        for line in body.splitlines():
            if line == _END:
                ends = True
            elif line.startswith("# HELP "):  # prometheus-client begins each family with it
                samples = families.setdefault(line, [])
            elif line.startswith("#"):
                if line not in samples[:1]:  # `# TYPE`, which a process before has told
                    samples.append(line)
            elif line:
                samples.append(_labelled(line, number))
    return "\n".join(_lines(families, ends=ends)) + "\n"


def _lines(families: Mapping[str, list[str]], *, ends: bool) -> Iterable[str]:
    for help_line, lines in families.items():
        yield help_line
        yield from lines
    if ends:
        yield _END


def _labelled(line: str, number: int) -> str:
    name = _NAME.match(line)
    assert name is not None, line
    label, rest = f'{LABEL}="{number}"', line[name.end() :]
    return f"{name[0]}{{{label},{rest[1:]}" if rest.startswith("{") else f"{name[0]}{{{label}}}{rest}"
