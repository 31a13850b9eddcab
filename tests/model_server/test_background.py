from __future__ import annotations

import socket
from typing import Any

import pytest

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import Client, UnavailableError

pytestmark = pytest.mark.integration


def test_inside_it_serves_and_after_it_does_not(world: Any, settings: ServerSettings) -> None:
    """The context manager returns a serving server, and leaves no port open."""
    with BackgroundServer(lambda: world.server(settings)) as running:
        with Client(running.target, timeout_s=10) as client:
            assert client.score("transactions", 1, {"customer_id": 1}).history_count > 0
        target = running.target
    with Client(target, timeout_s=1) as client, pytest.raises(UnavailableError):
        client.score("transactions", 1)


def test_a_taken_port_is_told_to_who_starts_it(world: Any) -> None:
    """What keeps the server from starting is raised where it was started, not lost on its thread."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = ServerSettings(port=taken.getsockname()[1], metrics_port=0)
        with pytest.raises(RuntimeError):
            BackgroundServer(lambda: world.server(settings)).start()
