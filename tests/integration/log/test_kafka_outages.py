"""A Kafka that is away, refuses us, hangs, or comes back: what the user is told, and that nothing kept is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from headrace.errors import ConfigurationError, HeadraceError, TransportError
from headrace.log.kafka import KafkaLog
from headrace.log.ports import Position, Record, TopicPartition
from headrace.telemetry.logging import FIELDS
from headrace.testing.conformance.log_suite import Seat
from tests.integration.log.support import fetch_some, kafka_log, missing, records, settings_for, values
from tests.support.kafka import PASSWORD, USER, KafkaServer
from tests.support.obstacles import let_pass
from tests.support.ports import free_ports
from tests.support.waiting import until

IMPATIENT: dict[str, Any] = {"request_timeout_seconds": 2, "session_timeout_seconds": 6, "heartbeat_seconds": 0.5}


@pytest_asyncio.fixture
async def own_kafka() -> AsyncIterator[KafkaServer]:
    """A broker that the test may kill."""
    server = KafkaServer()
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


async def test_nothing_acknowledged_is_lost_when_a_broker_is_killed(own_kafka: KafkaServer, topic_name: str) -> None:
    """It is started again, and publishing continues."""
    async with kafka_log(own_kafka.url, **IMPATIENT) as log:
        await log.create(topic_name, 3)
        partitions = [TopicPartition(topic_name, number) for number in range(3)]
        acknowledged: dict[Position, int] = {}
        failures: list[HeadraceError] = []
        is_over = asyncio.Event()

        async def is_published(numbers: list[int]) -> bool:
            try:
                positions = await log.publish(records(topic_name, numbers))
            except TransportError as error:
                failures.append(error)
                return False
            acknowledged.update(zip(positions, numbers, strict=True))
            return True

        async def publish(start: int) -> None:
            number = start
            while not is_over.is_set():
                await until(partial(is_published, [number, number + 1]), "two records are acknowledged", 60)
                number += 2

        publishers = [asyncio.create_task(publish(1_000_000 * n)) for n in range(5)]
        await until(lambda: len(acknowledged) > 500, "publishing is under way")

        await own_kafka.kill()
        await until(lambda: len(failures) > 5, "publishers are told")
        before = len(acknowledged)
        await own_kafka.start()

        await until(lambda: len(acknowledged) > before + 500, "publishing continues")
        is_over.set()
        await asyncio.gather(*publishers)
        reader = await log.reader(dict.fromkeys(partitions, 0))
        found: list[Record] = []

        async def has_all() -> bool:
            found.extend(await fetch_some(reader))
            return not missing(acknowledged, found)

        await until(has_all, "all that was acknowledged is there")
        await reader.close()

    stored = {Position(r.topic, r.partition, r.offset): int(r.value or b"-1") for r in found}
    assert {position: stored[position] for position in acknowledged} == acknowledged
    assert all("HEADRACE_LOG" in str(failure) and "\n" not in str(failure) for failure in failures)


async def test_a_reader_tells_of_an_outage_and_another_continues(own_kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(own_kafka.url, **IMPATIENT) as log:
        await log.create(topic_name, 1)
        partition = TopicPartition(topic_name, 0)
        await log.publish(records(topic_name, range(10)))
        reader = await log.reader({partition: 0})
        found: list[Record] = []
        while len(found) < 10:
            found += await fetch_some(reader)
        await own_kafka.kill()

        with pytest.raises(TransportError, match="HEADRACE_LOG"):
            await until(lambda: fetch_some(reader), "the reader says that nothing answers")
        position = reader.position(partition)
        await reader.close()
        with pytest.raises(TransportError, match="HEADRACE_LOG"):
            await log.reader({partition: position})

        await own_kafka.start()
        await log.publish(records(topic_name, [10]))
        reader = await log.reader({partition: position})
        while len(found) < 11:
            found += await fetch_some(reader)
        await reader.close()

    assert values(found) == list(range(11))


async def test_a_reader_lives_through_a_short_outage(own_kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(own_kafka.url) as log:
        await log.create(topic_name, 1)
        reader = await log.reader({TopicPartition(topic_name, 0): 0})
        assert await fetch_some(reader) == []

        await own_kafka.restart()
        await until(lambda: _published(log, topic_name), "the publisher is back")

        await until(lambda: fetch_some(reader), "the reader is back")
        await reader.close()


async def test_a_member_gets_its_partitions_back_after_an_outage(own_kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(own_kafka.url, **IMPATIENT) as log:
        await log.create(topic_name, 4)
        seat = Seat(log, topic_name, [topic_name])
        await seat.start()
        await seat.owns(lambda owned: len(owned) == 4)

        await own_kafka.restart()

        other = Seat(log, topic_name, [topic_name])
        await other.start()
        await other.owns(lambda owned: len(owned) == 2)
        await seat.owns(lambda owned: len(owned) == 2)
        assert not seat.owned & other.owned
        await seat.stop()
        await other.owns(lambda owned: len(owned) == 4)
        await other.stop()


async def test_a_member_joins_once_the_broker_is_there(own_kafka: KafkaServer, topic_name: str) -> None:
    log = KafkaLog(settings_for(own_kafka.url, **IMPATIENT))
    await own_kafka.create_topic(topic_name, 2)
    await own_kafka.kill()
    seat = Seat(log, topic_name, [topic_name])

    await seat.start()
    assert not seat.membership.is_joined
    await own_kafka.start()

    await seat.owns(lambda owned: len(owned) == 2)
    await seat.stop()
    await log.stop()


async def test_a_spare_member_outlives_max_poll_and_takes_over(kafka: KafkaServer, topic_name: str) -> None:
    """aiokafka takes a member without partitions for idle, and lets it neither beat nor join (its issue 1187)."""
    async with kafka_log(kafka.url, max_poll_seconds=10, session_timeout_seconds=6, heartbeat_seconds=0.5) as log:
        await log.create(topic_name, 1)
        owner, spare = Seat(log, topic_name, [topic_name]), Seat(log, topic_name, [topic_name])
        await owner.start()
        await owner.owns(bool)
        await spare.start()
        await let_pass(seconds=12)  # past max_poll: only time shows what idling does
        keeper, other = (owner, spare) if owner.owned else (spare, owner)
        assert keeper.owned
        assert not other.owned

        await keeper.stop()

        await other.owns(bool)
        await other.stop()


async def test_a_listener_that_fails_gets_a_new_seat(kafka: KafkaServer, topic_name: str) -> None:
    class Failing(Seat):
        calls = 0

        async def assigned(self, partitions: Any) -> None:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("the first time fails")
            await super().assigned(partitions)

    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 2)
        seat = Failing(log, topic_name, [topic_name])
        await seat.start()

        await seat.owns(lambda owned: len(owned) == 2)
        await seat.stop()


@pytest.mark.parametrize("failure", [RuntimeError, asyncio.CancelledError])
async def test_a_listener_that_always_fails_gets_a_new_seat(
    kafka: KafkaServer, topic_name: str, failure: type[BaseException]
) -> None:
    class Failing(Seat):
        calls = 0
        revocations = 0

        async def assigned(self, partitions: Any) -> None:
            self.calls += 1
            if self.calls <= 2:
                raise failure
            await super().assigned(partitions)

        async def revoked(self, partitions: Any) -> None:
            self.revocations += 1
            raise failure

    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 2)
        seat = Failing(log, topic_name, [topic_name])
        await seat.start()

        await seat.owns(lambda owned: len(owned) == 2)
        assert seat.revocations == 2
        await seat.stop()


async def test_a_broker_that_hangs_fails_a_publish_in_time(own_kafka: KafkaServer, topic_name: str) -> None:
    """Publishing works again afterwards."""
    async with kafka_log(own_kafka.url, **IMPATIENT) as log:
        await log.create(topic_name, 2)
        await log.publish(records(topic_name, [1]))

        own_kafka.pause()
        results = await asyncio.gather(
            *(log.publish(records(topic_name, [n])) for n in range(20)), return_exceptions=True
        )
        own_kafka.resume()

        assert all(isinstance(result, TransportError) for result in results)
        await until(lambda: _published(log, topic_name), "publishing works again")


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
        await log.create(topic_name, 1)
        await log.publish(records(topic_name, [7]))
        reader = await log.reader({TopicPartition(topic_name, 0): 0})
        seat = Seat(log, topic_name, [topic_name])
        await seat.start()

        await until(lambda: fetch_some(reader), "the record is read")
        await seat.owns(bool)
        await seat.stop()
        await reader.close()


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


async def _published(log: KafkaLog, topic: str) -> bool:
    try:
        return bool(await log.publish(records(topic, [1])))
    except TransportError:
        return False
