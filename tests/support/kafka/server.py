"""The server itself: formatted, started, killed, started again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from headrace.database import launch
from tests.support.certificates import Certificates
from tests.support.kafka.installation import archive_of_classes, find_jars
from tests.support.maven import find_java
from tests.support.ports import free_ports
from tests.support.waiting import until

USER = "headrace"
PASSWORD = "river-stone"  # of a server that lives for a test run, on loopback

_CLUSTER_ID = "aGVhZHJhY2UtdGVzdHMtMQ"
_SCRAM = "SCRAM-SHA-256"
_SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_START_SECONDS = 60.0
_LOG4J = Path(__file__).with_name("log4j2.properties")


class KafkaServer:
    """One Kafka node, or the running one that `external` names (then start, stop and kill do nothing)."""

    def __init__(
        self,
        external: str | None = None,
        *,
        is_fast: bool = False,
        archive: Path | None = None,
        beside: KafkaServer | None = None,
        ports: Sequence[int] = (),
        advertised: str | None = None,
        properties: Mapping[str, str] | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """A broker that joins the cluster of the one that it is `beside`, or one that is a cluster of its own.

        `is_fast` lets Java compile as well as it can: more events a second, for half as much start-up time again.
        `archive` is where it leaves, when it is shut down, the classes with which later ones start sooner.
        `ports` are those of a server that another process has started, and that is not to be started or stopped here.
        `advertised` is where clients of one more listener, `proxied_port`, are told to connect: a proxy's host:port.
        `properties` come last in server.properties.
        `certificates` give it a listener with TLS, `secured_bootstrap`.
        """
        self._first = beside
        self._cluster: list[KafkaServer] = [] if beside is None else beside._cluster
        self._cluster.append(self)
        self._is_paused = False
        self.node_id = len(self._cluster)
        self._external = external
        self._compiler = [] if is_fast else ["-XX:TieredStopAtLevel=1"]
        self._archive = archive
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self.ports = list(ports) or free_ports(3)
        self._plain, self._sasl, self._controller = self.ports
        self._advertised = advertised
        self._properties = dict(properties or {})
        self._certificates = certificates
        self.proxied_port, self._secured = free_ports(2)
        self._admin: AdminClient | None = None

    @property
    def bootstrap(self) -> str:
        """host:port, without security."""
        return self._external or f"127.0.0.1:{self._plain}"

    @property
    def sasl_bootstrap(self) -> str:
        """host:port of the SASL_PLAINTEXT listener: mechanism PLAIN, `USER` and `PASSWORD`."""
        return f"127.0.0.1:{self._sasl}"

    @property
    def secured_bootstrap(self) -> str:
        """host:port of the SASL_SSL listener: mechanisms PLAIN and SCRAM-SHA-256, `USER` and `PASSWORD`."""
        return f"127.0.0.1:{self._secured}"

    @property
    def url(self) -> str:
        """The value for HEADRACE_LOG."""
        return f"kafka://{self.bootstrap}"

    @property
    def is_external(self) -> bool:
        """True if the server is not ours to stop."""
        return self._external is not None

    @property
    def pid(self) -> int | None:
        """The broker's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> None:
        """Return when the broker answers: with no data the first time, later on the same ports and data.

        Call it in the main thread: the broker ends with the thread that started it.
        """
        if self._external:
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="headrace-kafka-"))
            self._write_settings(self._folder)
            await self._format(self._folder)
        with (self._folder / "server.log").open("ab") as log:
            settings = str(self._folder / "server.properties")
            options = [*self._compiler, *self._classes(), "-Xmx512m"]
            self._process = self._java(*options, "kafka.Kafka", settings, output=log.fileno())
        self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        await until(lambda: asyncio.to_thread(self._answers), "Kafka answers", _START_SECONDS)

    async def stop(self) -> None:
        """End the broker politely and throw its data away."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                await until(lambda: self.pid is None, "Kafka has stopped", 10.0)
            except TimeoutError:
                await self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    async def shut_down(self) -> None:
        """End the broker politely and keep its data for the next start."""
        if self._process is not None:
            self._process.terminate()
            await until(lambda: self.pid is None, "Kafka has stopped", 30.0 if self._archive is None else 300.0)

    async def kill(self) -> None:
        """End the broker with -9 and keep its data for the next start."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def restart(self, *, advertised: str | None = None) -> None:
        """Kill the broker and start it again; clients of `proxied_port` may be told another address from now on."""
        await self.kill()
        if advertised is not None and self._folder is not None:
            self._advertised = advertised
            self._write_settings(self._folder)
        await self.start()

    def pause(self) -> None:
        """Stop the broker in its tracks: connections stay open and nothing answers."""
        assert self._process is not None
        self._is_paused = True
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker continue."""
        assert self._process is not None
        self._is_paused = False
        self._process.send_signal(signal.SIGCONT)

    async def create_topic(self, topic: str, partitions: int, **configuration: str) -> None:
        """Create the topic; `configuration` as `retention_ms="1000"`. Returns when every broker knows it."""
        options = {name.replace("_", "."): value for name, value in configuration.items()}
        await self._create(NewTopic(topic, partitions, 1, config=options), topic, partitions)

    async def create_topic_on(self, topic: str, replicas: list[list[int]], **configuration: str) -> None:
        """Create the topic with these nodes as each partition's replicas; the first leads. Returns when all know it."""
        options = {name.replace("_", "."): value for name, value in configuration.items()}
        asked = NewTopic(topic, len(replicas), replica_assignment=replicas, config=options)
        await self._create(asked, topic, len(replicas))

    async def has_leaders(self, topic: str) -> list[bool]:
        """Return for each partition whether a broker leads it."""
        known = await asyncio.to_thread(lambda: self._admin_client.list_topics(timeout=10).topics[topic].partitions)
        return [known[number].leader >= 0 for number in sorted(known)]

    async def in_sync(self, topic: str) -> list[int]:
        """Return for each partition how many replicas are in sync. It asks this broker alone: others may be paused."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        known = await asyncio.to_thread(lambda: admin.list_topics(timeout=10).topics[topic].partitions)
        return [len(known[number].isrs) for number in sorted(known)]

    async def members(self, group: str) -> int:
        """Return how many members a consumer group has."""
        described = self._admin_client.describe_consumer_groups([group])[group]
        return len((await asyncio.to_thread(described.result, 10)).members)

    async def _create(self, asked: NewTopic, topic: str, partitions: int) -> None:
        await asyncio.to_thread(lambda: self._admin_client.create_topics([asked])[topic].result(30))
        for server in self._cluster:
            if server is self or (server.pid is not None and not server._is_paused):
                await until(
                    lambda server=server: asyncio.to_thread(server._has, topic, partitions),  # type: ignore[misc]
                    f"broker {server.node_id} knows topic {topic}",
                )

    async def delete_topic(self, topic: str) -> None:
        """Delete the topic. Returns when it is gone."""
        await asyncio.to_thread(lambda: self._admin_client.delete_topics([topic])[topic].result(30))
        await until(lambda: asyncio.to_thread(lambda: not self._has(topic, 0)), f"topic {topic} is gone")

    @property
    def _admin_client(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        return self._admin

    def _answers(self) -> bool:
        assert self._folder is not None
        if self.pid is None:
            said = (self._folder / "server.log").read_text(errors="replace")[-2_000:]
            raise RuntimeError(f"Kafka exited:\n{said}")
        try:
            return bool(self._admin_client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _has(self, topic: str, partitions: int) -> bool:
        """Tell whether this broker knows the topic: a client that has known its cluster for a while asks any of it."""
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        known = client.list_topics(timeout=10).topics
        if topic not in known or known[topic].error is not None:
            return False
        found = known[topic].partitions.values()
        return len(found) >= partitions and all(partition.leader >= 0 for partition in found)

    async def _format(self, folder: Path) -> None:
        settings = str(folder / "server.properties")
        with (folder / "format.log").open("wb") as log:
            process = self._java(
                "-XX:TieredStopAtLevel=1",
                *self._classes(),
                "kafka.tools.StorageTool",
                *("format", "--no-initial-controllers" if self._first else "--standalone"),
                *("-t", _CLUSTER_ID, "-c", settings),
                *(("--add-scram", f"{_SCRAM}=[name={USER},password={PASSWORD}]") if self._certificates else ()),
                output=log.fileno(),
            )
            await until(lambda: process.poll() is not None, "Kafka's folder is formatted", _START_SECONDS)
        if process.returncode != 0:
            raise RuntimeError(f"Kafka's folder cannot be formatted:\n{(folder / 'format.log').read_text()[-2_000:]}")

    def _classes(self) -> list[str]:
        if self._archive is not None:
            return [f"-XX:ArchiveClassesAtExit={self._archive}"]
        found = archive_of_classes()
        return [f"-XX:SharedArchiveFile={found}"] if found.exists() else []

    def _java(self, *arguments: str, output: int) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        options = [
            "-cp",
            f"{find_jars()}/*",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            f"-Dlog4j2.configurationFile={_LOG4J}",
        ]
        return subprocess.Popen(
            launch.command("same", [find_java(), *options, *arguments], signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env={name: value for name, value in os.environ.items() if name != "CLASSPATH"},
            start_new_session=True,
        )

    def _write_settings(self, folder: Path) -> None:
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        listeners = {"PLAINTEXT": self._plain, "SASL": self._sasl}
        if self._certificates is not None:
            listeners["SECURED"] = self._secured
        advertised = _addresses(listeners)
        if self._advertised is not None:
            listeners["PROXIED"] = self.proxied_port
            advertised += f",PROXIED://{self._advertised}"
        if self._first is None:
            listeners["CONTROLLER"] = self._controller
        protocols = "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SASL:SASL_PLAINTEXT,SECURED:SASL_SSL,CONTROLLER:PLAINTEXT"
        settings = {
            "process.roles": "broker" if self._first else "broker,controller",
            "node.id": str(self.node_id),
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{(self._first or self)._controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": _addresses(listeners),
            "advertised.listeners": advertised,
            "listener.security.protocol.map": protocols,
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
            "log.dirs": str(folder / "data"),
            # From here on what differs from a default broker: replicas on one node, and shorter waits. No limit is
            # wider than the default and nothing is switched off that a default broker does to its clients.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "log.retention.check.interval.ms": "3000",
            "log.initial.task.delay.ms": "500",
            "log.segment.delete.delay.ms": "1000",  # with 0 a thread looks for what to delete without a pause
            "controlled.shutdown.enable": "false",
            # A killed broker may register again only when its old session is over.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "250",
        }
        if self._certificates is not None:
            settings |= {
                "listener.name.secured.ssl.keystore.type": "PEM",
                "listener.name.secured.ssl.keystore.location": str(self._certificates.server),
                "listener.name.secured.sasl.enabled.mechanisms": f"PLAIN,{_SCRAM}",
                "listener.name.secured.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
                f"listener.name.secured.{_SCRAM.lower()}.sasl.jaas.config": _SCRAM_LOGIN,
            }
        settings |= self._properties
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (folder / "server.properties").write_text(text)


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
