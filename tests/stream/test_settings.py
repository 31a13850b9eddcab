from __future__ import annotations

import pytest
from pydantic import ValidationError

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
