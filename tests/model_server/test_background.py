from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import Client, UnavailableError
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

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


def test_what_interrupts_a_drain_ends_it(
    world: Any, settings: ServerSettings, payment: Callable[[], service_pb2.ScoreRequest]
) -> None:
    """As a second signal does: who is in flight hears so, the thread ends, and then the interruption goes on."""
    request = payment()
    request.row.event_time_us = world.start_us + 10**11
    request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="history", offset=10**6))

    def interrupt(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    slow = settings.model_copy(update={"drain_grace_s": 60.0, "deadline_default_ms": 60_000})
    running = BackgroundServer(lambda: world.server(slow)).start()
    try:
        with grpc.insecure_channel(running.target) as channel:
            call = service_grpc.PredictionServiceStub(channel).Score.future(request, timeout=60)
            time.sleep(0.3)
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(InterruptedError):
                running.close()
            assert not running._thread.is_alive()
            assert call.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        signal.signal(signal.SIGALRM, before)
