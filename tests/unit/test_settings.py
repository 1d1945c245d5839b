"""Settings: every relation, every fault at once, unknown variables, service links, secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from headrace.errors import ConfigurationError
from headrace.settings import DatabaseSettings, KafkaSettings, Settings, load_settings, variables


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """Return the sentence that the environment is refused with."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    return str(refused.value)


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings()
    assert (settings.log, settings.is_database_embedded, settings.role) == ("embedded", True, "all")
    assert settings == Settings()


def test_every_setting_has_a_default_and_a_description() -> None:
    for name, field in variables():
        assert name.startswith("HEADRACE_")
        assert not field.is_required(), name
        assert field.description and field.description.rstrip().endswith((".", "!")), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, field in variables()
        for kind, value in ((float, "inf"), (float, "1e300"), (int, str(10**30)))
        if kind in (field.annotation, *get_args(field.annotation))
    ],
)
def test_number_beyond_all_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Kafka and Postgres have integers of 32 bits: what does not fit would fail each request instead of the start."""
    assert f"{name}=" in refusal(monkeypatch, **{name: value})


@pytest.mark.parametrize(
    "password", ["hunter2/x", "hunter2#x", "hunter2?x", "hunter2@x/y", "x@hunter2/y", "4?hunter2", "[hunter2"]
)
def test_password_that_cuts_off_its_address_is_not_shown(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    """What stands before the sign would be read as a host or a port, and be told as one that is wrong."""
    said = refusal(monkeypatch, HEADRACE_DATABASE=f"postgresql://shop:{password}@db:5432/shop")
    assert said == f"a setting is wrong: {NO_DATABASE}"
    monkeypatch.delenv("HEADRACE_DATABASE")
    said = refusal(monkeypatch, HEADRACE_SCHEMA_REGISTRY_URL=f"https://shop:{password}@registry")
    assert "HEADRACE_SCHEMA_REGISTRY_URL holds no user and no password" in said and "hunter2" not in said


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///shop?host=/run/postgresql&user=ada@mill",
        "postgresql://shop@one:5432,[::1]:5433,three/shop?target_session_attrs=primary",
        "postgresql://shop:a%2Fb%3F%23%40@db/shop",
        "postgresql://%2Frun%2Fpostgresql/shop",
    ],
)
def test_address_of_postgres_in_any_form_is_accepted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HEADRACE_DATABASE", url)
    assert load_settings().database_url == url


def test_names_are_distinct() -> None:
    names = [name for name, _ in variables()]
    assert len(names) == len(set(names))


def test_variables_reach_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_LOG", "kafka://one:9092,two:9093/")
    monkeypatch.setenv("HEADRACE_ROLE", "worker")
    monkeypatch.setenv("HEADRACE_KAFKA_LINGER_SECONDS", "0.1")
    monkeypatch.setenv("HEADRACE_ENGINE_BATCH_RECORDS", "7")
    settings = load_settings()
    assert settings.is_kafka
    assert settings.kafka_brokers == ["one:9092", "two:9093"]
    assert settings.kafka.linger_seconds == 0.1
    assert settings.engine.batch_records == 7


def test_overrides_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PARTITIONS", "3")
    assert load_settings({"partitions": 4}).partitions == 4


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError):
        load_settings().log = "memory"


NO_DATABASE = (
    "HEADRACE_DATABASE must be embedded or postgresql://user@host:port/name, in which a password has its /, ?, # and @ "
    "percent-encoded"
)
RELATIONS: list[tuple[dict[str, str], str]] = [
    ({"HEADRACE_LOG": "rabbit"}, "HEADRACE_LOG must be embedded, memory or kafka://host:port[,host:port]"),
    ({"HEADRACE_LOG": "kafka"}, "HEADRACE_LOG must be embedded, memory or kafka://host:port[,host:port]"),
    ({"HEADRACE_LOG": ""}, "HEADRACE_LOG must be embedded, memory or kafka://host:port[,host:port]"),
    ({"HEADRACE_LOG": "kafka://"}, "HEADRACE_LOG=kafka:// needs host:port for every broker, separated by commas"),
    ({"HEADRACE_LOG": "kafka://one"}, "HEADRACE_LOG=kafka:// needs host:port for every broker, separated by commas"),
    ({"HEADRACE_LOG": "kafka://a:1,b"}, "HEADRACE_LOG=kafka:// needs host:port for every broker, separated by commas"),
    (
        {"HEADRACE_LOG": "kafka://a:99999"},
        "HEADRACE_LOG=kafka:// needs host:port for every broker, separated by commas",
    ),
    (
        {"HEADRACE_LOG": "kafka://user:hunter2@a:9092"},
        "HEADRACE_LOG holds no user and no password; set HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD_FILE",
    ),
    (
        {"HEADRACE_SCHEMA_REGISTRY_URL": "https://user:hunter2@a:8081"},
        "HEADRACE_SCHEMA_REGISTRY_URL holds no user and no password; set HEADRACE_SCHEMA_REGISTRY_USERNAME and "
        "HEADRACE_SCHEMA_REGISTRY_PASSWORD_FILE",
    ),
    (
        {"HEADRACE_SCHEMA_REGISTRY_URL": "registry:8081"},
        "HEADRACE_SCHEMA_REGISTRY_URL must be http://host:port or https://host:port",
    ),
    (
        {"HEADRACE_ROLE": "worker"},
        "HEADRACE_ROLE=worker needs a log that processes share: HEADRACE_LOG=kafka://...",
    ),
    (
        {"HEADRACE_ROLE": "ingest", "HEADRACE_LOG": "memory"},
        "HEADRACE_ROLE=ingest needs a log that processes share: HEADRACE_LOG=kafka://...",
    ),
    ({"HEADRACE_ROLE": "bad"}, "HEADRACE_ROLE='bad': Input should be 'all', 'ingest' or 'worker'"),
    (
        {"HEADRACE_DATABASE": "mysql://root:hunter2@db/shop"},
        NO_DATABASE,
    ),
    (
        {"HEADRACE_DATABASE": "postgresql://root:hunter2@[::1"},
        NO_DATABASE,
    ),
    (
        {"HEADRACE_LOG": "kafka://a:1", "HEADRACE_KAFKA_MAX_POLL_SECONDS": "30"},
        "HEADRACE_ENGINE_BATCH_SECONDS must be below HEADRACE_KAFKA_MAX_POLL_SECONDS",
    ),
    (
        {"HEADRACE_LOG": "kafka://a:1", "HEADRACE_DATABASE_IDLE_IN_TRANSACTION_SECONDS": "45"},
        "HEADRACE_DATABASE_IDLE_IN_TRANSACTION_SECONDS must be below HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS",
    ),
    (
        {"HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS": "8", "HEADRACE_KAFKA_HEARTBEAT_SECONDS": "3"},
        "HEADRACE_KAFKA_HEARTBEAT_SECONDS must be at most a third of HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS",
    ),
    (
        {"HEADRACE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "HEADRACE_KAFKA_USERNAME": "shop"},
        "SASL_SSL needs HEADRACE_KAFKA_SASL_MECHANISM and HEADRACE_KAFKA_USERNAME",
    ),
    (
        {"HEADRACE_KAFKA_TLS_CERT_FILE": "/tls.crt"},
        "HEADRACE_KAFKA_TLS_CERT_FILE needs HEADRACE_KAFKA_TLS_KEY_FILE",
    ),
    (
        {"HEADRACE_ENGINE_RETRY_FIRST_SECONDS": "9", "HEADRACE_ENGINE_RETRY_MAX_SECONDS": "8"},
        "HEADRACE_ENGINE_RETRY_FIRST_SECONDS must be at most HEADRACE_ENGINE_RETRY_MAX_SECONDS",
    ),
    (
        {"HEADRACE_ENGINE_HANDLER_SECONDS": "31"},
        "HEADRACE_ENGINE_HANDLER_SECONDS must be at most HEADRACE_ENGINE_BATCH_SECONDS",
    ),
    (
        {"HEADRACE_ENGINE_HANDLER_SECONDS": "61", "HEADRACE_ENGINE_BATCH_SECONDS": "61"},
        "HEADRACE_ENGINE_HANDLER_SECONDS must be at most HEADRACE_ENGINE_STUCK_SECONDS",
    ),
    (
        {"HEADRACE_ENGINE_BATCH_BYTES": "65535"},
        "HEADRACE_ENGINE_BATCH_BYTES='65535': Input should be greater than or equal to 65536",
    ),
    (
        {"HEADRACE_ENGINE_BATCH_BYTES": "1073741825"},
        "HEADRACE_ENGINE_BATCH_BYTES='1073741825': Input should be less than or equal to 1073741824",
    ),
    (
        {"HEADRACE_LOG": "kafka://a..b:9092"},
        "HEADRACE_LOG=kafka:// needs host:port for every broker, separated by commas",
    ),
    ({"HEADRACE_MANAGEMENT_HOST": "a..b"}, "HEADRACE_MANAGEMENT_HOST='a..b' must be a name or an address"),
    ({"HEADRACE_PARTITIONS": "0"}, "HEADRACE_PARTITIONS='0': Input should be greater than or equal to 1"),
]


@pytest.mark.parametrize(("environment", "fault"), RELATIONS, ids=[fault[:60] for _, fault in RELATIONS])
def test_wrong_setting_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], fault: str
) -> None:
    said = refusal(monkeypatch, **environment)
    assert said == f"a setting is wrong: {fault}"
    assert "hunter2" not in said


def test_all_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(
        monkeypatch,
        HEADRACE_LGO="kafka://a:1",
        HEADRACE_ROLE="bad",
        HEADRACE_KAFKA_BATCH_BYTES="many",
        HEADRACE_ENGINE_BATCH_RECORDS="0",
        HEADRACE_ENGINE_DRAIN_SECONDS="-1",
        HEADRACE_PARTITIONS="x",
    )
    lines = [line.split(":")[0].strip() for line in said.splitlines()]
    assert lines == [
        "the settings are wrong",
        "HEADRACE_LGO",
        "HEADRACE_KAFKA_BATCH_BYTES='many'",
        "HEADRACE_ENGINE_BATCH_RECORDS='0'",
        "HEADRACE_ENGINE_DRAIN_SECONDS='-1'",
        "HEADRACE_PARTITIONS='x'",
        "HEADRACE_ROLE='bad'",
    ]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("HEADRACE_LGO", "HEADRACE_LOG"),
        ("HEADRACE_PARTITION", "HEADRACE_PARTITIONS"),
        ("HEADRACE_MANAGMENT_PORT", "HEADRACE_MANAGEMENT_PORT"),
        ("HEADRACE_DATABASE_POOLSIZE", "HEADRACE_DATABASE_POOL_SIZE"),
        ("HEADRACE_API_KEY_FILE", "HEADRACE_API_KEYS_FILE"),
    ],
)
def test_unknown_variable_is_refused_with_the_closest_name(
    monkeypatch: pytest.MonkeyPatch, name: str, suggestion: str
) -> None:
    said = refusal(monkeypatch, **{name: "8000"})
    assert said == f"a setting is wrong: {name}: no such setting; did you mean {suggestion}?"


def test_unknown_variable_without_a_close_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, HEADRACE_XYZZYPLUGH="1") == "a setting is wrong: HEADRACE_XYZZYPLUGH: no such setting"


@pytest.mark.parametrize("value", ["x", "{}", '{"username": "shop"}'])
def test_component_is_not_settable_as_a_whole(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert "HEADRACE_KAFKA: no such setting" in refusal(monkeypatch, HEADRACE_KAFKA=value)


def test_name_in_small_letters_is_a_setting_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("headrace_partitions", "7")
    assert load_settings().partitions == 7
    said = refusal(monkeypatch, headrace_kafka="x", headrace_partition="7")
    assert "headrace_kafka: no such setting" in said
    assert "headrace_partition: no such setting; did you mean HEADRACE_PARTITIONS?" in said


def test_service_links_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("HEADRACE", "HEADRACE_INGEST", "HEADRACE_2_WORKER"):
        links = {
            "SERVICE_HOST": "10.0.0.7",
            "SERVICE_PORT": "8000",
            "SERVICE_PORT_HTTP": "8000",
            "PORT": "tcp://10.0.0.7:8000",
            "PORT_8000_TCP": "tcp://10.0.0.7:8000",
            "PORT_8000_TCP_PROTO": "tcp",
            "PORT_8000_TCP_PORT": "8000",
            "PORT_8000_TCP_ADDR": "10.0.0.7",
        }
        for name, value in links.items():
            monkeypatch.setenv(f"{service}_{name}", value)
    assert load_settings() == Settings()


def test_port_variable_that_is_no_service_link_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "HEADRACE_PORT: no such setting" in refusal(monkeypatch, HEADRACE_PORT="8000")


def test_variables_of_tests_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TEST_KAFKA", "127.0.0.1:9092")
    assert load_settings() == Settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATABASE", "postgresql://shop:hunter2@db/shop")
    monkeypatch.setenv("HEADRACE_DATABASE_PASSWORD", "hunter3")
    monkeypatch.setenv("HEADRACE_KAFKA_PASSWORD", "hunter4")
    settings = load_settings()
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter" not in shown
    assert settings.database_url == "postgresql://shop:hunter2@db/shop"


def test_password_file_completes_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("mill:wheel/%@\n")
    monkeypatch.setenv("HEADRACE_DATABASE", "postgresql://shop@db:5432/shop?sslmode=require")
    monkeypatch.setenv("HEADRACE_DATABASE_PASSWORD_FILE", str(file))
    assert load_settings().database_url == "postgresql://shop:mill%3Awheel%2F%25%40@db:5432/shop?sslmode=require"


def test_address_that_sqlalchemy_uses_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATABASE", "postgresql+asyncpg://shop:river@db:5432/shop?sslmode=require")
    assert load_settings().database_url == "postgresql://shop:river@db:5432/shop?sslmode=require"


@pytest.mark.parametrize(
    ("environment", "may_move"),
    [
        ({}, True),
        ({"HEADRACE_MANAGEMENT_HOST": "localhost"}, True),
        ({"HEADRACE_MANAGEMENT_PORT": "9000"}, False),
        ({"HEADRACE_MANAGEMENT_HOST": "0.0.0.0"}, False),  # noqa: S104 - probes of a pod look for the port
    ],
)
def test_only_an_unset_port_of_this_machine_may_move(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], may_move: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings().may_move_management_port is may_move


def test_logging_can_be_left_to_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_LOG_FORMAT", "none")
    assert load_settings().log_format == "none"


def test_password_file_wins_over_the_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from file")
    assert DatabaseSettings(password="plain", password_file=file).read_password() == "from file"
    assert KafkaSettings(password="plain", password_file=file).read_password() == "from file"
    assert KafkaSettings(password="plain").read_password() == "plain"
    assert KafkaSettings().read_password() is None


def test_password_file_is_one_line_of_text(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes("größe\r\n".encode())
    assert DatabaseSettings(password_file=file).read_password() == "größe"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"HEADRACE_DATABASE_PASSWORD_FILE=.*password is no text in UTF-8"):
        DatabaseSettings(password_file=file).read_password()


def test_password_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATABASE", "postgresql://shop@db/shop")
    monkeypatch.setenv("HEADRACE_DATABASE_PASSWORD_FILE", "/nowhere/password")
    with pytest.raises(
        ConfigurationError, match=r"HEADRACE_DATABASE_PASSWORD_FILE=/nowhere/password cannot be read: No such file"
    ):
        _ = load_settings().database_url


@pytest.mark.parametrize(
    ("subscriptions", "runs"),
    [("*", True), ("wallets", True), ("orders, wallets", True), ("orders", False), ("", False), ("wallet", False)],
)
def test_worker_runs_the_subscriptions_it_was_given(subscriptions: str, runs: bool) -> None:
    assert Settings(subscriptions=subscriptions).runs("wallets") is runs
