"""How the Kafka cluster is reached: the clients' options from the settings, a trial log-in, and errors in our words."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaError,
    LeaderNotAvailableError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.helpers import create_ssl_context
from aiokafka.protocol.metadata import MetadataRequest

from headrace.errors import ConfigurationError, HeadraceError, TransportError
from headrace.settings import KafkaSettings

Options = dict[str, Any]


class KafkaConnection(AIOKafkaConnection):  # type: ignore[misc]
    """A connection whose socket is closed when it is closed, whatever the broker does.

    aiokafka waits until what it wrote last has left, which may take a quarter of an hour if the broker's machine is
    gone, and with TLS until the broker has said goodbye too, which may take 30 s. Nothing is lost with what was not
    sent: whoever asked is told that there is no answer.
    """

    def close(self, reason: CloseReason | None = None, exc: BaseException | None = None) -> asyncio.Future[None]:
        """Disconnect; the future is done when the socket is closed."""
        writer = self._writer
        closed: asyncio.Future[None] = super().close(reason, exc)
        if writer is not None:
            writer.transport.abort()
        return closed


async def connect(host: str, port: int, **how: Any) -> KafkaConnection:
    """Return a connection that the broker has let in; nothing is left of one that it has not.

    Raises: KafkaError, OSError, TimeoutError.
    """
    connection = KafkaConnection(host, port, **how)
    await connection.connect()
    return connection


def client_options(brokers: Sequence[str], settings: KafkaSettings) -> Options:
    """Return the arguments that every aiokafka client takes. Raises: ConfigurationError (files, password)."""
    options: Options = {
        "bootstrap_servers": list(brokers),
        "client_id": "headrace",
        "request_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "security_protocol": settings.security_protocol,
        "ssl_context": _ssl_context(settings) if settings.security_protocol.endswith("SSL") else None,
    }
    if settings.security_protocol.startswith("SASL"):
        password = settings.read_password()
        if password is None:
            raise ConfigurationError(
                f"{settings.security_protocol} needs HEADRACE_KAFKA_PASSWORD or HEADRACE_KAFKA_PASSWORD_FILE."
            )
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": password,
        }
    return options


async def log_in(options: Options) -> None:
    """Return once one broker has let us in.

    aiokafka's own bootstrap says only that it failed; here the reason is kept.
    Raises: ConfigurationError (a broker refused the log-in), TransportError (none answered).
    """
    failures: list[HeadraceError] = []
    for host, port, _ in collect_hosts(options["bootstrap_servers"], randomize=False):
        arguments = {name: value for name, value in options.items() if name != "bootstrap_servers"}
        try:
            connection = await connect(host, port, **arguments)
            try:
                await connection.send(MetadataRequest([]))
            finally:
                await connection.close()
        except (KafkaError, OSError, TimeoutError) as error:
            failures.append(translate(error, f"{host}:{port}", options))
        else:
            return
    raise next((failure for failure in failures if isinstance(failure, ConfigurationError)), failures[0])


def translate(error: BaseException, where: str, options: Mapping[str, Any]) -> HeadraceError:
    """Return the error of aiokafka or of the network in one sentence that names the setting to look at."""
    ours = next((found for cause in _causes(error) if (found := _explain(cause, where, options))), None)
    if ours is None:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        ours = TransportError(
            f"Kafka at {where} (HEADRACE_LOG) does not answer ({reason}): is it up, and does its listener speak "
            f"HEADRACE_KAFKA_SECURITY_PROTOCOL={options['security_protocol']}?"
        )
    ours.__cause__ = error
    return ours


def _explain(cause: BaseException, where: str, options: Mapping[str, Any]) -> HeadraceError | None:
    match cause:
        case SaslAuthenticationFailed() | AuthenticationFailedError():
            return ConfigurationError(
                f"Kafka at {where} refused the user {options['sasl_plain_username']!r}: "
                "check HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD."
            )
        case UnsupportedSaslMechanismError() | AuthenticationMethodNotSupported():
            return ConfigurationError(
                f"Kafka at {where} does not offer HEADRACE_KAFKA_SASL_MECHANISM={options['sasl_mechanism']}."
            )
        case ssl.SSLCertVerificationError():
            return ConfigurationError(
                f"the certificate of Kafka at {where} is not trusted ({cause.verify_message}): "
                "check HEADRACE_KAFKA_TLS_CA_FILE and the host names in HEADRACE_LOG."
            )
        case ssl.SSLError() | IllegalSaslStateError():
            return ConfigurationError(
                f"Kafka at {where} does not speak HEADRACE_KAFKA_SECURITY_PROTOCOL={options['security_protocol']}."
            )
        case TopicAuthorizationFailedError() | GroupAuthorizationFailedError() | ClusterAuthorizationFailedError():
            return TransportError(f"Kafka at {where} forbids it ({cause.message}): the user lacks an ACL.")
        case LeaderNotAvailableError() | NotLeaderForPartitionError():
            return TransportError(f"Kafka at {where} has no leader for {_named(cause)}: are all of its brokers up?")
        case NotEnoughReplicasError() | NotEnoughReplicasAfterAppendError():
            return TransportError(
                f"Kafka at {where} has too few replicas in sync for {_named(cause)} (min.insync.replicas): are all of "
                "its brokers up?"
            )
        case BrokerResponseError() if not cause.retriable:
            return TransportError(f"Kafka at {where} answered with an error ({cause}): its server log says why.")
        case socket.gaierror():
            return TransportError(f"the host of {where} in HEADRACE_LOG is not known: {cause.strerror}.")
        case ConnectionRefusedError():
            return TransportError(f"nothing listens on {where}: is Kafka up, and HEADRACE_LOG right?")
    return None


def _named(cause: BaseException) -> str:
    return str(cause.args[0]) if cause.args else "a partition"


def quiet_client_logs() -> None:
    """Keep aiokafka's own log lines away: what matters in them reaches the user as our errors, in one sentence each.

    In an outage it writes several error lines a second for each client. HEADRACE_LOG_LEVEL=DEBUG shows them.
    """
    client = logging.getLogger("aiokafka")
    if client.level == logging.NOTSET and not logging.getLogger("headrace").isEnabledFor(logging.DEBUG):
        client.setLevel(logging.CRITICAL)


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    files = {
        "HEADRACE_KAFKA_TLS_CA_FILE": settings.tls_ca_file,
        "HEADRACE_KAFKA_TLS_CERT_FILE": settings.tls_cert_file,
        "HEADRACE_KAFKA_TLS_KEY_FILE": settings.tls_key_file,
    }
    for variable, path in files.items():
        if path is not None and not path.is_file():
            raise ConfigurationError(f"{variable}={path} is not a file.")
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=settings.tls_ca_file,
            certfile=settings.tls_cert_file,
            keyfile=settings.tls_key_file,
            password="",  # an encrypted key fails; without this OpenSSL would ask on the terminal
        )
    except (ssl.SSLError, OSError) as error:
        named = ", ".join(f"{variable}={path}" for variable, path in files.items() if path is not None)
        raise ConfigurationError(f"{named} cannot be used: {error}.") from error
    return context


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__
    return chain
