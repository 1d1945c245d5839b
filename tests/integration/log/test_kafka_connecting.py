"""A Kafka that is not there, or refuses us: the user is told which setting to change."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigurationError, TransportError
from headrace.log.kafka import KafkaLog
from headrace.telemetry.logging import FIELDS
from headrace.testing.conformance.log_suite import Seat
from tests.integration.log.support import kafka_log, records, settings_for, write_read_and_join
from tests.support.kafka import PASSWORD, USER, KafkaServer
from tests.support.ports import free_ports
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"password": "wrong"}, "HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD"),
        ({"username": "nobody"}, "refused the user 'nobody'"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "HEADRACE_KAFKA_SASL_MECHANISM=SCRAM-SHA-256"),
        ({"password": None}, "HEADRACE_KAFKA_PASSWORD"),
        ({"security_protocol": "SSL", "tls_ca_file": Path("/no/such/file")}, "HEADRACE_KAFKA_TLS_CA_FILE"),
        ({"security_protocol": "SSL", "tls_ca_file": Path(__file__)}, "HEADRACE_KAFKA_TLS_CA_FILE"),
    ],
)
async def test_a_refused_log_in_is_a_setting_to_change(
    kafka: KafkaServer, options: dict[str, Any], sentence: str
) -> None:
    right = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "username": USER,
        "password": PASSWORD,
        "request_timeout_seconds": 5,
    }

    with pytest.raises(ConfigurationError, match=sentence) as caught:
        async with kafka_log(f"kafka://{kafka.sasl_bootstrap}", **(right | options)):
            pass

    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


async def test_a_right_log_in_reads_and_writes_and_joins(kafka: KafkaServer, topic_name: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    async with kafka_log(
        f"kafka://{kafka.sasl_bootstrap}",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        username=USER,
        password_file=file,
    ) as log:
        await write_read_and_join(log, topic_name)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
async def test_a_listener_that_hangs_up_may_speak_another_protocol(kafka: KafkaServer, protocol: str) -> None:
    with pytest.raises(TransportError, match=f"HEADRACE_KAFKA_SECURITY_PROTOCOL={protocol}"):
        async with kafka_log(f"kafka://{kafka.sasl_bootstrap}", request_timeout_seconds=5, security_protocol=protocol):
            pass


async def test_an_address_where_nothing_listens_is_named(topic_name: str) -> None:
    (port,) = free_ports(1)
    log = KafkaLog(settings_for(f"kafka://127.0.0.1:{port}"))

    for call in (log.start(), log.publish(records(topic_name, [1])), log.topics([topic_name])):
        with pytest.raises(TransportError, match=f"127.0.0.1:{port}.*HEADRACE_LOG"):
            await call
    await log.stop()


async def test_the_client_says_nothing_by_itself(caplog: pytest.LogCaptureFixture, topic_name: str) -> None:
    (port,) = free_ports(1)
    log = KafkaLog(settings_for(f"kafka://127.0.0.1:{port}"))
    seat = Seat(log, topic_name, [topic_name])

    await seat.start()
    await until(lambda: caplog.messages, "the member says that it cannot join")
    with pytest.raises(TransportError):
        await log.start()
    await seat.stop()
    await log.stop()

    (said,) = caplog.records
    fields = getattr(said, FIELDS)
    assert said.getMessage() == "the group cannot be joined; trying again"
    assert fields["group"] == topic_name
    assert f"127.0.0.1:{port}" in fields["error"]


async def test_publishers_share_the_attempt_to_connect(topic_name: str) -> None:
    """A broker that takes connections and never answers: nobody waits for the others' attempts."""
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    log = KafkaLog(settings_for(f"kafka://127.0.0.1:{port}", request_timeout_seconds=1))

    async with asyncio.timeout(20):  # one after the other would take 50 s
        results = await asyncio.gather(
            *(log.publish(records(topic_name, [n])) for n in range(50)), return_exceptions=True
        )

    assert all(isinstance(result, TransportError) and "HEADRACE_LOG" in str(result) for result in results)
    await log.stop()
    silent.close()
    for writer in writers:
        writer.close()


async def test_a_host_that_is_not_known_is_named() -> None:
    log = KafkaLog(settings_for("kafka://no-such-host.invalid:9092"))

    with pytest.raises(TransportError, match=r"no-such-host.invalid.*HEADRACE_LOG"):
        await log.start()
    await log.stop()


async def test_one_broker_of_the_list_is_enough(kafka: KafkaServer, topic_name: str) -> None:
    (port,) = free_ports(1)
    async with kafka_log(f"kafka://127.0.0.1:{port},{kafka.bootstrap}") as log:
        await log.create(topic_name, 1)
        assert await log.publish(records(topic_name, [1]))


async def test_a_topic_that_kafka_refuses_is_a_setting_to_change(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url, replication_factor=3) as log:
        with pytest.raises(ConfigurationError, match=f"refused to create the topic '{topic_name}'"):
            await log.create(topic_name, 1)
