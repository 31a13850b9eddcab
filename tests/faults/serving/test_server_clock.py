"""A server whose wall clock somebody sets: deadlines hold, times are judged by it and say so, staleness shows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from nowgraph.client import Client, ClientError
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

pytestmark = [pytest.mark.integration, pytest.mark.faults]

STEP_S = 300
BOUND_S = 2.0
STALE = "{stale_graph: {bound: 2s, answer: flag}}"


@contextmanager
def complete(graph: TemporalGraph) -> Iterator[None]:
    """An updater that says all the time that everything is in the graph."""
    stop = threading.Event()

    def say() -> None:
        while not stop.wait(0.1):
            graph.set_complete_time(time.time_ns() // 1_000)

    saying = threading.Thread(target=say)
    saying.start()
    yield
    stop.set()
    saying.join()


@contextmanager
def server(model: Path, arena: Path, port: int, secret: str, variables: dict[str, str]) -> Iterator[str]:
    """`nowgraph serve --arena` with a bound for staleness."""
    policy = arena.parent / "degraded.yaml"
    policy.write_text(STALE)
    settings = {
        "DEGRADED_PATH": str(policy), "DEADLINE_DEFAULT_MS": "20000", "LAG_INTERVAL_S": "0.1", "PORT": str(port),
    }  # fmt: skip
    environment = {f"NOWGRAPH_SERVER_{name}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "nowgraph.cli", "serve", "--checkpoint", str(model), "--arena", str(arena), "--port",
         str(port), "--metrics-port", "0"],
        env={**os.environ, **environment, **variables, "NOWGRAPH_PRIVACY_SECRET": secret, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=120)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def staleness_s(client: Client) -> float | None:
    """How far the graph is said to lie behind its log; None where the answer is not flagged."""
    mark = client.score("transactions", 1, {"customer_id": 1}, event_time=1).degraded
    assert mark is None or mark.graph_staleness_us is not None
    return None if mark is None else mark.graph_staleness_us / 1e6


def test_the_servers_clock_is_stepped_by_five_minutes(
    fraud_model: Path,
    tmp_path: Path,
    clock: Any,
    free_ports: Callable[[int], list[int]],
    until: Callable[..., None],
    pytestconfig: Any,
) -> None:
    """Back and forward. A clock that was set back makes no graph fresh whose updater has ended."""
    secret = pytestconfig.pluginmanager.get_plugin("served_world").SECRET
    arena, [port] = tmp_path / "arena", free_ports(1)
    with TemporalGraph.create(load_schema(fraud_model / "schema.yaml"), arena=arena, arena_bytes=1 << 26) as graph:
        graph.set_complete_time(time.time_ns() // 1_000)
        serving = server(fraud_model, arena, port, secret, clock.variables)
        with serving as target, Client(target, timeout_s=20) as client:
            with complete(graph):
                until(lambda: staleness_s(client) is None, "the graph is fresh")
                for ahead_s in (-STEP_S, STEP_S, 0):
                    clock.step(ahead_s)
                    told_us = client.score("transactions", 1, {"customer_id": 1}).cutoff_time_us
                    assert abs(told_us / 1e6 - ahead_s - time.time()) < 5  # by its own clock, and it says so
                    check_future(client, ahead_s)
                    check_deadline(target)
                clock.step(-STEP_S)
                time.sleep(2 * BOUND_S)
                assert staleness_s(client) is None  # the updater is there: its word is new all the time
            until(lambda: (staleness_s(client) or 0) > BOUND_S, "the updater has ended, and the graph counts as fresh")
            clock.step(STEP_S)
            assert (staleness_s(client) or 0) >= STEP_S


def check_future(client: Client, ahead_s: int) -> None:
    """What is later than the server's clock and the schema's bound is refused; the bound is five minutes."""
    now_us = time.time_ns() // 1_000 + ahead_s * 1_000_000
    client.score("transactions", 1, {"customer_id": 1}, event_time=now_us + 290_000_000)
    with pytest.raises(ClientError, match="ahead of the server's clock"):
        client.score("transactions", 1, {"customer_id": 1}, event_time=now_us + 330_000_000)


def check_deadline(target: str) -> None:
    """A request that waits for a token has its time, and no more."""
    asked = service_pb2.ScoreRequest()
    asked.row.table = "transactions"
    asked.row.key.parts.add(integer=1)
    asked.freshness_token.topic = "transactions"
    with grpc.insecure_channel(target) as channel:
        begun_s = time.monotonic()
        with pytest.raises(grpc.RpcError) as passed:
            service_grpc.PredictionServiceStub(channel).Score(asked, timeout=0.7)
        assert passed.value.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert 0.5 < time.monotonic() - begun_s < 3
