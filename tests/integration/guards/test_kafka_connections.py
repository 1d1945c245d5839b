"""The way to Kafka: secured, silent, moved to another address, and named by a DNS that fails."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import pytest_asyncio

from headrace.errors import ConfigurationError, TransportError
from tests.integration.guards.support import assert_unavailable, impatient, publish_all
from tests.integration.log.support import kafka_log, write_read_and_join
from tests.support.auditing import assert_promises_hold
from tests.support.certificates import Certificates, make_certificates
from tests.support.kafka import PASSWORD, USER, KafkaServer
from tests.support.link import Link
from tests.support.platform import client, execute, notebook, pages, running, sample, settings_for, until_settled
from tests.support.ports import free_ports
from tests.support.service import Service
from tests.support.small_app import write_small_app
from tests.support.waiting import until
from tests.support.web import http_client

PAGES = [f"page-{number}" for number in range(8)]
(PORT,) = free_ports(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[KafkaServer, Certificates]]:
    """A broker with TLS, whose clients of one listener are told that it is at `PORT` of `localhost`: at a link's."""
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    server = KafkaServer(certificates=certificates, advertised=f"localhost:{PORT}")
    try:
        await server.start()
        yield server, certificates
    finally:
        await server.stop()


@pytest.fixture
def own_kafka(secured: tuple[KafkaServer, Certificates]) -> KafkaServer:
    return secured[0]


@pytest.fixture
def right(secured: tuple[KafkaServer, Certificates]) -> dict[str, Any]:
    """The options of HEADRACE_KAFKA_ that the secured listener takes."""
    return {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "username": USER,
        "password": PASSWORD,
        "tls_ca_file": secured[1].authority,
        "request_timeout_seconds": 5,
    }


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_secured_listener_is_written_to_and_read(
    own_kafka: KafkaServer, right: dict[str, Any], topic_name: str, mechanism: str
) -> None:
    async with kafka_log(f"kafka://{own_kafka.secured_bootstrap}", **(right | {"sasl_mechanism": mechanism})) as log:
        await write_read_and_join(log, topic_name)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"password": "wrong"},
            "refused the user 'headrace': check HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD",
        ),
        ({"tls_ca_file": None}, "is not trusted .*: check HEADRACE_KAFKA_TLS_CA_FILE"),
        ({"sasl_mechanism": "SCRAM-SHA-512"}, "does not offer HEADRACE_KAFKA_SASL_MECHANISM=SCRAM-SHA-512"),
        (
            {"host": "localhost"},
            "is not trusted .*not valid for 'localhost'.*: check .* the host names in HEADRACE_LOG",
        ),
        ({"security_protocol": "SASL_PLAINTEXT"}, "HEADRACE_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT"),
    ],
)
async def test_refused_connection_is_one_sentence(
    own_kafka: KafkaServer, right: dict[str, Any], wrong: dict[str, Any], sentence: str
) -> None:
    host = wrong.get("host", "127.0.0.1")
    address = own_kafka.secured_bootstrap.replace("127.0.0.1", host)
    options = right | {name: value for name, value in wrong.items() if name != "host"}
    with pytest.raises((ConfigurationError, TransportError), match=sentence) as refused:
        async with kafka_log(f"kafka://{address}", **options):
            pass
    assert "\n" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


async def test_silence_of_the_coordinator_is_waited_for(
    own_kafka: KafkaServer, database_url: str, topic_name: str
) -> None:
    """Nothing passes until the session is over, and nobody is told; then all is applied, once."""
    async with Link(own_kafka.proxied_port, PORT) as link:
        platform = notebook(impatient(settings_for(database_url, f"kafka://127.0.0.1:{PORT}")), topic_name)
        async with running(platform) as runtime, client(platform) as http:
            await publish_all(http, PAGES, 1)
            await until_settled(runtime, "notes")
            link.is_open = False
            assert_unavailable(await http.post("/events/noted", json={"page": PAGES[0], "number": 99}))
            await until(lambda: _is_lost(own_kafka, "notebook.notes"), "the session is over")
            link.is_open = True
            await publish_all(http, PAGES, 2)
            await until_settled(runtime, "notes", seconds=60)
            found = await pages(runtime)
            assert {page: [number for number in found[page] if number < 99] for page in PAGES} == {
                page: [1, 2] for page in PAGES
            }
            assert found[PAGES[0]].count(99) <= 1
            assert sample(runtime, "events_parked_total") == 0
    await assert_promises_hold(database_url)


async def test_names_that_do_not_resolve_are_waited_for(
    own_kafka: KafkaServer, database_url: str, topic_name: str, tmp_path: Path
) -> None:
    """At the start, and later: the process has a hosts file of its own, and no name server."""
    hosts = tmp_path / "hosts"
    async with Link(own_kafka.proxied_port, PORT) as link:
        settings = {
            "HEADRACE_LOG": f"kafka://localhost:{PORT}",
            "HEADRACE_DATABASE": _at_host(database_url, "db.test"),
            "HEADRACE_PARTITIONS": "2",
            "HEADRACE_KAFKA_REQUEST_TIMEOUT_SECONDS": "2",
            "HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
            "HEADRACE_DATABASE_IDLE_IN_TRANSACTION_SECONDS": "3",
        }
        service = Service(tmp_path, settings, app=write_small_app(tmp_path, topic_name))
        try:
            hosts.write_text("")
            await service.start(ready=False, wrapper=_own_names(tmp_path, hosts))
            await until(lambda: _waits(service, "HEADRACE_DATABASE: db.test"), "the database's name is waited for")
            hosts.write_text("127.0.0.1 db.test\n")
            await until(lambda: _waits(service, "HEADRACE_LOG is not known"), "Kafka's name is waited for")
            hosts.write_text("127.0.0.1 db.test localhost\n")
            await until(service.is_ready, "the service is ready", 60)
            await until(lambda: _is_published(service, "one"), "an event is accepted")
            await until(lambda: _has(service, "one"), "it is applied")
            hosts.write_text("")
            link.reset()
            await execute(database_url, _END_SESSIONS)
            await until(lambda: _is_refused(service, "two"), "an event is refused")
            async with http_client() as http:
                assert_unavailable(await http.get(f"{service.url}/state/things/seen/one", timeout=20))
            hosts.write_text("127.0.0.1 db.test localhost\n")
            await until(lambda: _is_published(service, "two"), "it is accepted", 60)
            await until(lambda: _has(service, "two"), "it is applied", 60)
            assert await service.leave() == 0
            assert "Traceback" not in service.output
        except BaseException as error:
            error.add_note(service.output[-4_000:])
            raise
        finally:
            await service.stop()
    await assert_promises_hold(database_url)


async def test_brokers_that_moved_are_found_again(own_kafka: KafkaServer, database_url: str, topic_name: str) -> None:
    """Every broker has another address than the ones that are known, and HEADRACE_LOG leads there as before."""
    async with (
        Link(own_kafka.proxied_port) as bootstrap,
        Link(own_kafka.proxied_port) as moved,
        AsyncExitStack() as place,
    ):
        await place.enter_async_context(Link(own_kafka.proxied_port, PORT))
        platform = notebook(impatient(settings_for(database_url, f"kafka://127.0.0.1:{bootstrap.port}")), topic_name)
        async with running(platform) as runtime, client(platform) as http:
            await publish_all(http, PAGES, 1)
            await until_settled(runtime, "notes")
            await place.aclose()
            await own_kafka.restart(advertised=f"localhost:{moved.port}")
            await publish_all(http, PAGES, 2)
            await until_settled(runtime, "notes", seconds=60)
            assert await pages(runtime) == {page: [1, 2] for page in PAGES}
    await assert_promises_hold(database_url)


_END_SESSIONS = """
select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()
"""
_OWN_NAMES = """
mount --bind {hosts} /etc/hosts && mount --bind {resolver} /etc/resolv.conf && mount --bind {order} /etc/nsswitch.conf \
    && exec "$@"
"""


def _own_names(folder: Path, hosts: Path) -> list[str]:
    """Return what runs a command that knows no hosts but those in the file; skips the test where that may not be."""
    resolver, order = folder / "resolv.conf", folder / "nsswitch.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")  # nothing listens there
    order.write_text("hosts: files dns\n")
    script = _OWN_NAMES.format(hosts=hosts, resolver=resolver, order=order)
    wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"]
    has_it = shutil.which("unshare") is not None
    if not has_it or subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("names that fail need a mount namespace (root, unshare)")
    return wrapper


def _at_host(url: str, host: str) -> str:
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}@{host}:{parts.port}"))


async def _waits(service: Service, sentence: str) -> bool:
    try:
        async with http_client() as http:
            answer = await http.get(f"http://127.0.0.1:{service.management_port}/health/ready")
    except httpx.HTTPError:
        return False
    return answer.status_code == 503 and sentence in answer.text


async def _post(service: Service, name: str) -> httpx.Response:
    async with http_client() as http:
        return await http.post(
            f"{service.url}/events/thing.made", json={"name": name}, headers={"Idempotency-Key": name}, timeout=20
        )


async def _is_published(service: Service, name: str) -> bool:
    return (await _post(service, name)).status_code == 202


async def _is_refused(service: Service, name: str) -> bool:
    answer = await _post(service, name)
    if answer.status_code == 202:
        return False
    assert_unavailable(answer)
    return True


async def _has(service: Service, name: str) -> bool:
    async with http_client() as http:
        answer = await http.get(f"{service.url}/state/things/seen/{name}", timeout=20)
    return answer.status_code == 200 and answer.json() == {"count": 1}


async def _is_lost(kafka: KafkaServer, group: str) -> bool:
    """True when the group has no member that the coordinator knows."""
    return not await kafka.members(group)
