"""The client library: optional, its options typed, its complaints said once; TLS and SASL against a real broker."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError
from pydantic import SecretStr

from connectors.kafka import KafkaExporterSettings, KafkaReceiverSettings, KafkaSink, KafkaSource
from connectors.kafka.client import ErrorLog, client_options, load_library
from connectors.kafka.settings import KafkaClientSettings, KafkaTlsSettings, LogsTopicSettings, SaslSettings
from telflow.accounting import Ledger
from telflow.errors import ConfigError
from tests.certificates import make_certificates
from tests.kafka_broker import Broker, free_ports, run_broker
from tests.kafka_flow import read
from tests.numbered_logs import logs


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, str, Path]]:
    """A broker with a second door: TLS with client certificates, and SASL; its address and the authority's folder."""
    folder = tmp_path_factory.mktemp("guarded")
    make_certificates(folder, dict.fromkeys(("server", "client"), "127.0.0.1"))
    (folder / "store.pem").write_text((folder / "server.key").read_text() + (folder / "server.pem").read_text())
    [port, door, controller] = free_ports(3)
    settings = {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{door},CONTROLLER://127.0.0.1:{controller}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            'org.apache.kafka.common.security.plain.PlainLoginModule required user_gateway="let me in";'
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "store.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "ssl.client.auth": "required",
    }
    with run_broker(folder / "kafka", port, **settings) as broker:
        yield broker, f"127.0.0.1:{door}", folder


def secured(door: str, folder: Path, word: str = "let me in") -> dict[str, Any]:
    return {
        "brokers": (door,),
        "tls": KafkaTlsSettings(
            ca_file=folder / "ca.pem", cert_file=folder / "client.pem", key_file=folder / "client.key"
        ),
        "sasl": SaslSettings(mechanism="PLAIN", username="gateway", password=SecretStr(word)),
    }


def test_reads_and_writes_over_tls_with_a_password(guarded: tuple[Broker, str, Path], topic: str) -> None:
    """With the authority, a certificate and a password both ways work."""
    broker, door, folder = guarded
    broker.create(topic)
    client = secured(door, folder)
    sink = KafkaSink(KafkaExporterSettings(**client, logs=LogsTopicSettings(topic=topic)), ledger=Ledger())
    partition = sink.build_part("kafka", "kafka-0", None)
    partition.write_batch([logs([1, 2])])
    partition.snapshot()
    partition.close()
    reads: dict[str, Any] = {"traces": None, "metrics": None, "logs": {"topics": (topic,)}}
    source = KafkaSource(KafkaReceiverSettings(**client, **reads, initial_offset="earliest"), ledger=Ledger())
    [got] = read(source, 2)
    assert got.column("flags").to_pylist() == [1, 2]


@pytest.mark.parametrize("without", ["tls", "sasl", "password"])
def test_without_its_credentials_nothing_is_read(guarded: tuple[Broker, str, Path], without: str) -> None:
    """No TLS, no SASL, a wrong password: the start fails and says which broker, without the password."""
    _, door, folder = guarded
    client = secured(door, folder, "let me out" if without == "password" else "let me in")
    client.pop(without, None)
    settings = KafkaReceiverSettings(**client, startup_timeout=timedelta(seconds=2))
    with pytest.raises(ConfigError, match=f"expected a Kafka broker at {door}") as raised:
        KafkaSource(settings).list_parts()
    assert "let me" not in str(raised.value)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telflow runs without it; Kafka does not."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigError, match=r"pip install 'telflow\[kafka\]'"):
        load_library()


def test_typed_settings_become_the_librarys_options() -> None:
    """Files, names and passwords under librdkafka's names; the user's further options beside them."""
    settings = KafkaClientSettings(
        tls=KafkaTlsSettings(ca_file=Path("ca.pem"), cert_file=Path("c.pem"), key_file=Path("k.pem")).model_copy(
            update={"key_password": SecretStr("secret")}
        ),
        sasl=SaslSettings(username="me", password=SecretStr("hush")),
        librdkafka={"fetch.wait.max.ms": 7},
    )
    options = client_options(settings, ErrorLog("kafka"))
    wanted = {
        "security.protocol": "sasl_ssl",
        "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "c.pem",
        "ssl.key.location": "k.pem",
        "ssl.key.password": "secret",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "hush",
        "fetch.wait.max.ms": 7,
    }
    assert wanted.items() <= options.items()
    assert "hush" not in repr(settings)
    only_tls = client_options(KafkaClientSettings(tls=KafkaTlsSettings()), ErrorLog("kafka"))
    assert only_tls["security.protocol"] == "ssl"
    token = client_options(KafkaClientSettings(sasl=SaslSettings(mechanism="OAUTHBEARER")), ErrorLog("kafka"))
    assert token["security.protocol"] == "sasl_plaintext"
    assert "sasl.username" not in token


def test_the_librarys_complaints_are_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """It repeats itself with every attempt; each kind is said anew after a minute."""
    clock = [0.0]
    errors = ErrorLog("kafka", now_s=lambda: clock[0])
    with caplog.at_level(logging.WARNING):
        for at_s, code in ((0, KafkaError._TRANSPORT), (1, KafkaError._TRANSPORT), (2, KafkaError._SSL)):
            clock[0] = at_s
            errors(KafkaError(code, "no luck"))
        clock[0] = 61
        errors(KafkaError(KafkaError._TRANSPORT, "no luck"))
    assert [record.getMessage() for record in caplog.records] == [
        "kafka: _TRANSPORT: no luck",
        "kafka: _SSL: no luck",
        "kafka: _TRANSPORT: no luck",
    ]
