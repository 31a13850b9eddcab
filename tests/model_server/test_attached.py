from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from model_server.attached import serve, wait_for_graph
from model_server.errors import NotConfiguredError
from model_server.settings import ServerSettings
from nowgraph.client import Client, UnavailableError
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc
from temporal_graph.errors import ArenaError
from temporal_graph.graph import TemporalGraph

pytestmark = pytest.mark.integration
ARENA_BYTES = 64 << 20

SERVE = """
from model_server.attached import serve
from model_server.settings import ServerSettings
serve(ServerSettings())
"""

# As above, told to stop while it warms up.
STOPPED = """
import os
import signal
from model_server.attached import serve
from model_server.server import Server
from model_server.settings import ServerSettings

warm_up = Server._warm_up

async def stopped(self):
    os.kill(os.getpid(), signal.SIGTERM)
    await warm_up(self)

Server._warm_up = stopped
serve(ServerSettings())
"""


# As above, with a drain that never ends.
STUCK = """
import asyncio
from model_server import attached
from model_server.server import Server
from model_server.settings import ServerSettings

async def stuck(self):
    await asyncio.sleep(60)

Server._close = stuck
attached.HURRIED_S = 0.5
attached.serve(ServerSettings())
"""


def start(environment: dict[str, str], program: str = SERVE) -> subprocess.Popen[str]:
    """A server process; its settings come from the environment."""
    return subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )


def port_of(process: subprocess.Popen[str]) -> int:
    """The port it says it serves on."""
    assert process.stdout is not None
    for line in process.stdout:
        if "serving" in line and " port=" in line:
            return int(line.rsplit(" port=", 1)[1].split()[0])
    raise AssertionError(f"the server ended with {process.wait()}")


@pytest.fixture
def environment(world: Any, tmp_path: Path) -> dict[str, str]:
    """Settings of a server beside an arena folder; there is nothing in the folder yet."""
    (tmp_path / "schema.yaml").write_text(world.schema_text)
    return {
        "NOWGRAPH_SERVER_PORT": "0",
        "NOWGRAPH_SERVER_METRICS_PORT": "0",
        "NOWGRAPH_SERVER_SCHEMA_PATH": str(tmp_path / "schema.yaml"),
        "NOWGRAPH_SERVER_ARENA_PATH": str(tmp_path / "arena"),
        "NOWGRAPH_SERVER_CHECKPOINT_PATH": str(world.checkpoint),
        "NOWGRAPH_SERVER_GENERATION_POLL_MS": "20",
        "NOWGRAPH_PRIVACY_SECRET": world.secret,
        "NO_COLOR": "1",
    }


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes to end when the test does."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.slow
def test_a_server_process_reads_what_another_process_writes(
    world: Any, environment: dict[str, str], processes: list[subprocess.Popen[str]]
) -> None:
    """The writer here, the server there, one arena: what is applied is in the next answer, in either of two servers.

    The servers start before there is a graph and wait for it; SIGTERM ends them with 0; a new writer's generation is
    followed without a restart.
    """
    arena = Path(environment["NOWGRAPH_SERVER_ARENA_PATH"])
    processes += [start(environment), start(environment)]
    time.sleep(0.5)
    minute_us = 60_000_000
    asked_us = world.start_us + 10**10
    cells = {"customer_id": 3, "terminal_id": 99}
    with ExitStack() as stack:
        with TemporalGraph.create(world.schema, arena=arena, arena_bytes=ARENA_BYTES) as graph:
            graph.apply([world.event(1, world.start_us, customer=3)], backfill=True)
            clients = [stack.enter_context(Client(f"127.0.0.1:{port_of(p)}", timeout_s=20)) for p in processes]
            assert [c.score("transactions", 9, cells, event_time=asked_us).history_count for c in clients] == [1, 1]
            for number in range(2, 8):
                applied_us = world.start_us + number * minute_us
                graph.apply([world.event(number, applied_us, customer=3)], backfill=True)
                counts = [c.score("transactions", 9, cells, event_time=asked_us).history_count for c in clients]
                assert counts == [number, number]
        with TemporalGraph.create(world.schema, arena=arena, arena_bytes=ARENA_BYTES, publish=False) as graph:
            graph.apply([world.event(n, world.start_us + n, customer=3) for n in range(5)], backfill=True)
            assert clients[0].score("transactions", 9, cells, event_time=asked_us).graph_position.generation == 1
            graph.publish_generation()
            until_s = time.monotonic() + 20
            while (score := clients[0].score("transactions", 9, cells, event_time=asked_us)).history_count != 5:
                assert time.monotonic() < until_s
                time.sleep(0.02)
            assert score.graph_position.generation == 2
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(timeout=20) for process in processes] == [0, 0]


@pytest.mark.slow
def test_the_servers_outlive_their_writer_and_each_other(
    world: Any, environment: dict[str, str], processes: list[subprocess.Popen[str]]
) -> None:
    """A killed server takes nothing with it, and without a writer the published graph is still answered from."""
    arena = Path(environment["NOWGRAPH_SERVER_ARENA_PATH"])
    asked_us = world.start_us + 10**10
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=ARENA_BYTES) as graph:
        graph.apply([world.event(1, world.start_us, customer=3)], backfill=True)
        processes += [start(environment), start(environment)]
        first, second = (port_of(process) for process in processes)
        processes[0].kill()
        processes[0].wait()
        graph.apply([world.event(2, world.start_us, customer=3)], backfill=True)
    with Client(f"127.0.0.1:{second}", timeout_s=20) as client:
        assert client.score("transactions", 9, {"customer_id": 3}, event_time=asked_us).history_count == 2
    with Client(f"127.0.0.1:{first}", timeout_s=1) as client, pytest.raises(UnavailableError):
        client.score("transactions", 9, {"customer_id": 3}, event_time=asked_us)
    with grpc.insecure_channel(f"127.0.0.1:{second}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_stop_while_the_server_starts_drains_it(world: Any, environment: dict[str, str]) -> None:
    """Its first answer on the way is given, then it ends: exit code 0, and no traceback."""
    command = [sys.executable, "-c", STOPPED]
    arena = Path(environment["NOWGRAPH_SERVER_ARENA_PATH"])
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=ARENA_BYTES):
        ran = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
        )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "drained" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("program", "code", "last"), [(SERVE, 0, "drained"), (STUCK, 1, "ended_undrained")])
def test_a_second_signal_ends_a_drain_at_once(
    world: Any, environment: dict[str, str], processes: list[subprocess.Popen[str]], program: str, code: int, last: str
) -> None:
    """Who is in flight hears UNAVAILABLE, and the process ends well; where something hangs, it ends all the same."""
    arena = Path(environment["NOWGRAPH_SERVER_ARENA_PATH"])
    patient = {f"NOWGRAPH_SERVER_DRAIN_{name}_S": "60" for name in ("NOTICE", "GRACE")}
    patient["NOWGRAPH_SERVER_DEADLINE_DEFAULT_MS"] = "60000"
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=ARENA_BYTES) as graph:
        graph.apply([world.event(1, world.start_us, customer=3)], backfill=True)
        processes.append(start(environment | patient, program))
        with grpc.insecure_channel(f"127.0.0.1:{port_of(processes[0])}") as channel:
            request = service_pb2.ScoreRequest()
            request.row.table = "transactions"
            request.row.key.parts.add(integer=9)
            request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="history", offset=10**6))
            call = service_grpc.PredictionServiceStub(channel).Score.future(request, timeout=60)
            time.sleep(0.5)
            processes[0].send_signal(signal.SIGTERM)
            time.sleep(1.0)
            assert processes[0].poll() is None
            assert not call.done()
            processes[0].send_signal(signal.SIGTERM)
            assert processes[0].wait(timeout=20) == code
            assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert processes[0].stdout is not None
    assert last in processes[0].stdout.read().splitlines()[-1]


def test_a_missing_path_is_named() -> None:
    """The setting that lacks is in the error, by the name an operator sets."""
    with pytest.raises(NotConfiguredError, match="NOWGRAPH_SERVER_ARENA_PATH"):
        serve(ServerSettings(schema_path=Path("schema.yaml"), checkpoint_path=Path("model")))


def test_a_graph_is_in_one_place() -> None:
    """An arena and a store at once are refused by the names of both settings."""
    both = ServerSettings(
        schema_path=Path("schema.yaml"),
        checkpoint_path=Path("model"),
        arena_path=Path("arena"),
        store_url=SecretStr("redis://redis:6379"),
    )
    with pytest.raises(NotConfiguredError, match="ARENA_PATH or NOWGRAPH_SERVER_STORE_URL: a graph is in one"):
        serve(both)


def test_waiting_for_a_graph_ends(world: Any, tmp_path: Path) -> None:
    """Without a writer the wait ends with the reason, after its time and not before."""
    start_s = time.monotonic()
    with pytest.raises(ArenaError, match="no graph is served"):
        wait_for_graph(world.schema, tmp_path, timeout_s=0.3)
    assert time.monotonic() - start_s >= 0.3
