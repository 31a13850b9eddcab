"""`nowgraph serve --workers`: real processes over one arena, under a load of Score calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import grpc
import pytest
import typer
from typer.testing import CliRunner

from nowgraph.client import Client, ClientError, Row
from nowgraph.client_values import row_to_wire
from nowgraph.workers import worker_command
from temporal_graph.graph import TemporalGraph

pytestmark = pytest.mark.integration

ARENA_BYTES = 64 << 20
CELLS = {"customer_id": 3, "terminal_id": 4}
# Both workers start anew, one after the other, each beside its predecessor, four callers and whatever else runs tests:
# a start is eight seconds of CPU on a slow host.
REPLACED_S = 240


@pytest.fixture
def arena(world: Any, tmp_path: Path) -> Iterator[Path]:
    """A live graph of this process with 100 payments, in a folder that others attach to."""
    (tmp_path / "schema.yaml").write_text(world.schema_text)
    folder = tmp_path / "arena"
    with TemporalGraph.create(world.schema, arena=folder, arena_bytes=ARENA_BYTES) as graph:
        graph.apply([world.event(n, world.start_us + n, customer=3) for n in range(100)], backfill=True)
        yield folder


@contextmanager
def serving(world: Any, arena: Path, *more: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command with two workers, and where it serves; SIGTERM must end it with 0, if nothing ended it before."""
    command = ["serve", "--checkpoint", world.checkpoint, "--schema", arena.parent / "schema.yaml", "--arena", arena]
    command += ["--port", 0, "--metrics-port", 0, "--workers", 2, "--json", *more]
    process = subprocess.Popen(
        [sys.executable, "-m", "nowgraph.cli", *map(str, command)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"NOWGRAPH_PRIVACY_SECRET": world.secret, "NOWGRAPH_SERVER_CONNECTION_AGE_S": "1"},
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n") or text.count("{") != text.count("}"):
            line = process.stdout.readline()
            assert line, process.wait()
            text += line
        yield process, json.loads(text)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=40) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def metric(port: int, name: str) -> float:
    """The sum of a metric's values."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))


class Callers:
    """Threads that ask one score after another, each with a connection of its own; every failure is kept.

    Half of them are a `Client`; the others are bare gRPC, which sends nothing a second time.
    """

    def __init__(self, world: Any, target: str, count: int) -> None:
        self._world, self._target = world, target
        self._stopping = threading.Event()
        self.answered = 0
        self.failures: list[Exception] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        asked_us = self._world.start_us + 10**9
        row = Row("transactions", 900 + number, CELLS, asked_us)
        request = row_to_wire(row, task="", tenant="").SerializeToString()
        while not self._stopping.is_set():
            # A new connection now and then: those that are just made are the ones a closing listener could lose.
            with Client(self._target, timeout_s=20) as client, grpc.insecure_channel(self._target) as channel:
                bare = channel.unary_unary("/nowgraph.v1.PredictionService/Score")
                for _ in range(20):
                    try:
                        if number % 2:
                            bare(request, timeout=20)
                        else:
                            client.score("transactions", 900 + number, CELLS, event_time=asked_us)
                    except (ClientError, grpc.RpcError) as error:
                        self.failures.append(error)
                    with self._lock:
                        self.answered += 1
                    time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(2 * REPLACED_S)
def test_a_rolling_restart_fails_no_request(world: Any, arena: Path) -> None:
    """Both processes are replaced under load: no call fails, both share the calls, and attaching replays nothing."""
    with serving(world, arena) as (process, where):
        before = {worker["pid"] for worker in where["workers"]}
        assert all(worker["attach_ms"] < 100 for worker in where["workers"])
        with Callers(world, where["grpc"], 4) as callers:
            time.sleep(1.0)
            ports = [worker["metrics_port"] for worker in where["workers"]]
            assert all(metric(port, "nowgraph_model_rows_total") > 0 for port in ports)
            process.send_signal(signal.SIGHUP)
            until_s = time.monotonic() + REPLACED_S
            while metric(where["metrics_port"], "nowgraph_worker_restarts_total") < 2:
                assert time.monotonic() < until_s
                time.sleep(0.1)
            assert 0 < metric(where["metrics_port"], 'nowgraph_worker_start_seconds{phase="attach"}') < 0.1
            time.sleep(1.0)
        assert callers.answered > 100
        assert callers.failures == []
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until_s = time.monotonic() + 60
        while len(pids := {int(pid) for pid in children.read_text().split()}) != 2:
            assert time.monotonic() < until_s, "a worker that was replaced does not end"
            time.sleep(0.1)
        assert not before & pids
        with urlopen(f"http://127.0.0.1:{where['metrics_port']}/ready", timeout=5) as answer:
            assert answer.status == 200


@pytest.mark.slow
def test_workers_end_with_their_supervisor(world: Any, arena: Path) -> None:
    """A supervisor that is killed leaves no process behind that would keep the port."""
    with serving(world, arena) as (process, where):
        process.kill()
        process.wait()
        until_s = time.monotonic() + 30
        while any(Path(f"/proc/{worker['pid']}/exe").exists() for worker in where["workers"]):
            assert time.monotonic() < until_s, "a worker outlived its supervisor"
            time.sleep(0.1)


def test_workers_need_an_arena(world: Any, tmp_path: Path, run_command: Callable[..., Any]) -> None:
    """Several processes share a graph that an updater writes; without its arena the command says so."""
    (tmp_path / "schema.yaml").write_text(world.schema_text)
    words = ("--checkpoint", world.checkpoint, "--schema", tmp_path / "schema.yaml", "--workers", 2)
    assert "--arena" in run_command("serve", *words, exit_code=2).stderr


def test_a_workers_command_is_the_supervisors_own() -> None:
    """Every option that was given reaches the workers, and no other; ports are replaced; a worker is no supervisor."""
    seen: list[list[str]] = []
    app = typer.Typer()

    @app.callback()
    def root(log_level: str = "warning") -> None: ...

    @app.command()
    def serve(
        context: typer.Context,
        port: int = 1,
        host: str = "",
        other: str = "what serving.yaml may say",
        workers: int = 1,
        fixed: bool = False,
        quiet: bool = False,
    ) -> None:
        seen.append(worker_command(context, port=7, quiet=True))

    CliRunner().invoke(app, ["--log-level", "info", "serve", "--host", "::1", "--workers", "3", "--fixed"])
    assert seen[0][1:5] == ["-P", "-m", "nowgraph.cli", "--log-level"]
    assert seen[0][5:] == ["info", "serve", "--port", "7", "--host", "::1", "--fixed", "--quiet"]
