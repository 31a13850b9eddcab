"""A Kafka that asks who one is, over TLS: with the product's settings, as `docs/SECURITY.md` gives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stream.errors import ConfigurationError, DeliveryError, SourceError, StreamError, UnreachableError
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

USER, PASSWORD = "nowgraph", "known-to-the-tests"  # kafka_fixtures.py's

Secured = Callable[..., StreamSettings]


@pytest.fixture
def secured(secured_kafka: Any, authority: Any, tmp_path: Path) -> Secured:
    """Settings of a listener: `secured("LOGIN", mechanism=)` or `secured("MUTUAL")`, and what is to be otherwise."""
    ca, password = tmp_path / "ca.pem", tmp_path / "password"
    ca.write_bytes(authority.pem)
    certificate, key = authority.issue("updater").write(tmp_path, "updater")

    def settings(listener: str, *, mechanism: str = "SCRAM-SHA-512", known: str = PASSWORD, **changes: str) -> Any:
        password.write_text(known)
        config = {"ssl.ca.location": str(ca)}
        if listener == "LOGIN":
            config |= {"security.protocol": "SASL_SSL", "sasl.mechanism": mechanism, "sasl.username": USER}
        else:
            config |= {"security.protocol": "SSL", "ssl.certificate.location": str(certificate)}
            config |= {"ssl.key.location": str(key)}
        broker = secured_kafka.brokers[0]
        return StreamSettings(
            kafka_bootstrap=f"127.0.0.1:{broker.login if listener == 'LOGIN' else broker.mutual}",
            kafka_config={**config, **{name.replace("_", "."): value for name, value in changes.items()}},
            kafka_password_path=password if listener == "LOGIN" else None,
        )

    return settings


@pytest.mark.parametrize("listener", [("LOGIN", "SCRAM-SHA-512"), ("LOGIN", "PLAIN"), ("MUTUAL", "")], ids="-".join)
def test_records_go_out_and_come_in(secured_kafka: Any, secured: Secured, listener: tuple[str, str]) -> None:
    """With a password over TLS, or with a certificate: what is published is read."""
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    secured_kafka.create_topic(topic, 1)
    settings = secured(listener[0], mechanism=listener[1])
    with EventProducer(settings) as producer:
        producer.send(topic, value=b"hello").result(20)
    source = KafkaSource([topic], settings=settings)
    assert source.poll(10, 20.0).values == [b"hello"]
    source.close()


# What is wrong, and the words that the message must have.
WRONG = {
    "password": ({"listener": "LOGIN", "known": "guessed"}, ("authentication", "NOWGRAPH_KAFKA_PASSWORD_PATH")),
    "user": ({"listener": "LOGIN", "sasl_username": "nobody"}, ("authentication", "sasl.username")),
    "mechanism": ({"listener": "LOGIN", "mechanism": "SCRAM-SHA-256"}, ("sasl.mechanism", "SCRAM-SHA-256")),
    "authority": ({"listener": "MUTUAL", "ssl_ca_location": "stranger.pem"}, ("certificate", "ssl.ca.location")),
    "protocol": ({"listener": "LOGIN", "security_protocol": "PLAINTEXT"}, ("security.protocol",)),
}


@pytest.mark.parametrize(
    "wrong",
    [name if name in {"password", "authority"} else pytest.param(name, marks=pytest.mark.faults) for name in WRONG],
)
def test_what_is_wrong_is_named(
    secured_kafka: Any, secured: Secured, stranger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Reading and sending fail within their time, and both say why and which setting to look at; never the password."""
    monkeypatch.chdir(tmp_path)
    Path("stranger.pem").write_bytes(stranger.pem)
    options, words = WRONG[wrong]
    # Reading has time, which it does not use where Kafka tells what is wrong.
    told = wrong != "protocol"
    settings = secured(**options).model_copy(update={"broker_timeout_s": 60 if told else 1, "delivery_timeout_s": 1})
    failures: list[StreamError] = []
    begun_s = time.monotonic()
    with pytest.raises(SourceError) as read:
        KafkaSource(["any"], settings=settings)
    assert time.monotonic() - begun_s < 40
    assert isinstance(read.value, UnreachableError) is not told
    failures.append(read.value)
    settings = settings.model_copy(update={"broker_timeout_s": 1})
    with EventProducer(settings) as producer, pytest.raises(DeliveryError) as sent:
        producer.send("any", value=b"hello").result(20)
    failures.append(sent.value)
    with EventProducer(settings) as producer, pytest.raises(DeliveryError) as counted:
        producer.partition_count("any")
    failures.append(counted.value)
    for failure in failures:
        for word in words:
            assert word in str(failure)
        assert "guessed" not in str(failure)


def test_a_file_that_is_not_there_is_named(secured: Secured) -> None:
    """Before anything is sent."""
    settings = secured("MUTUAL", ssl_ca_location="/nowhere/ca.pem")
    for client in (EventProducer, lambda settings: KafkaSource(["any"], settings=settings)):
        with pytest.raises(ConfigurationError, match=r"NOWGRAPH_KAFKA_CONFIG.*ssl\.ca\.location"):
            client(settings)


def test_the_updater_lives_on_a_secured_kafka(
    secured_kafka: Any, secured: Secured, world_of: Callable[..., Any], simulated: ModuleType, tmp_path: Path
) -> None:
    """`nowgraph update` reads, and sends its dead letters; with a wrong password it ends with one line that says so."""
    event, record = simulated.event, simulated.Record
    log = [record(event("payments", n, simulated.START_US, amount=1.0), simulated.START_US, False) for n in range(20)]
    log.append(record(b"\xff\xff", simulated.START_US, True))
    parts = {("events", 0): log, ("visits", 0): []}
    world = world_of(secured_kafka.bootstrap, schema=simulated.SCHEMA_YAML, log=parts)
    world.tell(0, 1)

    def update(settings: StreamSettings) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable, "-m", "nowgraph.cli", "update", "--schema", world.schema_path, "--arena", world.arena,
            "--bootstrap-servers", settings.kafka_bootstrap, "--until-caught-up", "--metrics-port", "0", "--quiet",
            "--json",
        ]  # fmt: skip
        environment = {
            **os.environ,
            "NOWGRAPH_KAFKA_CONFIG": json.dumps(settings.kafka_config),
            "NOWGRAPH_KAFKA_PASSWORD_PATH": str(settings.kafka_password_path),
            "NOWGRAPH_BROKER_TIMEOUT_S": "5",
            "NOWGRAPH_DEAD_LETTER_TOPIC": world.settings.dead_letter_topic,
        }
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    ran = update(secured("LOGIN"))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["applied"] == 20
    assert set(world.dead()) == world.poison
    refused = update(secured("LOGIN", known="guessed"))
    assert refused.returncode == 2, refused.stderr
    said = [line for line in refused.stderr.splitlines() if line.startswith("nowgraph: ")]
    assert len(said) == 1
    assert "NOWGRAPH_KAFKA_PASSWORD_PATH" in said[0]
