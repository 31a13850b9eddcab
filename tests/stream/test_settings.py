from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from stream.errors import ConfigurationError
from stream.producer import EventProducer
from stream.settings import StreamSettings


def test_the_environment_configures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is read from NOWGRAPH_ and its name; the client's own options are JSON and reach every client."""
    monkeypatch.setenv("NOWGRAPH_KAFKA_BOOTSTRAP", "broker:9093")
    monkeypatch.setenv("NOWGRAPH_KAFKA_CONFIG", '{"security.protocol": "SSL"}')
    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", "sixteen bytes long")
    settings = StreamSettings()
    assert settings.client_config() == {"bootstrap.servers": "broker:9093", "security.protocol": "SSL"}
    assert settings.secret_bytes() == b"sixteen bytes long"
    assert "sixteen" not in repr(settings)


def test_without_a_secret_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret is invented."""
    monkeypatch.delenv("NOWGRAPH_PRIVACY_SECRET", raising=False)
    assert StreamSettings().secret_bytes() is None


@pytest.mark.parametrize(
    "wrong", [{"pause_queue_bytes": 10, "resume_queue_bytes": 10}, {"fetch_wait_ms": 0}, {"record_bytes_max": 1}]
)
def test_wrong_limits_are_refused(wrong: dict[str, int]) -> None:
    """Limits that contradict each other, or make no sense, are errors at the start."""
    with pytest.raises(ValidationError):
        StreamSettings(**wrong)  # type: ignore[arg-type]


def test_kafka_over_tls_with_a_password(tmp_path: Path) -> None:
    """SASL over TLS reaches librdkafka under its own names, the password from its file, and is nowhere shown."""
    password = tmp_path / "password"
    password.write_text("hush\n")
    sasl = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "nowgraph",
        "ssl.ca.location": "/etc/kafka/ca.pem",
        "ssl.key.password": "hushed",
    }
    settings = StreamSettings(kafka_bootstrap="broker:9093", kafka_config=sasl, kafka_password_path=password)
    assert settings.client_config() == {"bootstrap.servers": "broker:9093", **sasl, "sasl.password": "hush"}
    assert "hush" not in repr(settings)
    password.unlink()
    with pytest.raises(ConfigurationError, match="password: No such file"):
        settings.client_config()


def test_librdkafka_takes_the_options() -> None:
    """A producer starts with them; its connections are made later, so no broker is needed for this."""
    config = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"}
    EventProducer(StreamSettings(kafka_bootstrap="127.0.0.1:1", kafka_config=config)).close()
