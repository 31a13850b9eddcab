from __future__ import annotations

import pytest
from pydantic import ValidationError

from model_server.settings import ServerSettings


def test_nothing_is_exposed_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ports are on loopback by default; the environment may say otherwise."""
    assert ServerSettings().host == ServerSettings().metrics_host == "127.0.0.1"
    monkeypatch.setenv("NOWGRAPH_SERVER_HOST", "0.0.0.0")
    assert ServerSettings().host == "0.0.0.0"
    assert ServerSettings().metrics_host == "127.0.0.1"


@pytest.mark.parametrize("name", [name for name in ServerSettings.model_fields if name.endswith("_limit")])
def test_every_limit_is_positive(name: str) -> None:
    """A limit of zero would refuse everything, and none would refuse nothing: both are mistakes."""
    with pytest.raises(ValidationError, match=name):
        ServerSettings(**{name: 0})


def test_settings_do_not_change() -> None:
    """What the server was started with is what it runs with, and a misspelt name is an error."""
    settings = ServerSettings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        ServerSettings(prot=1)  # type: ignore[call-arg]
