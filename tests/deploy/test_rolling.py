"""A rolling upgrade as a cluster does it: real servers over one graph, SIGTERM by SIGTERM, behind Envoy, under load."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2

pytestmark = pytest.mark.integration
COMPOSE = Path(__file__).resolve().parents[2] / "deploy" / "compose" / "compose.yaml"


def request(number: int) -> service_pb2.ScoreRequest:
    """A payment to score."""
    asked = service_pb2.ScoreRequest(request_id=f"r{number}")
    asked.row.table = "transactions"
    asked.row.operation = row_event_pb2.OPERATION_INSERT
    asked.row.key.parts.add(integer=1_000_000 + number)
    asked.row.cells.add(column="customer_id", integer=number % 20)
    return asked


class Pod:
    """A server as a process of its own, with compose's settings of its drain; `roll` replaces it by another."""

    def __init__(self, model: Path, arena: Path, port: int, secret: str) -> None:
        service = yaml.safe_load(COMPOSE.read_text())["services"]["server"]
        self.grace_s = float(service["stop_grace_period"].removesuffix("s"))
        drain = {name: value for name, value in service["environment"].items() if "_DRAIN_" in name}
        self._environment = {**os.environ, **drain, "NOWGRAPH_PRIVACY_SECRET": secret, "OMP_NUM_THREADS": "1"}
        self._command = [sys.executable, "-P", "-m", "nowgraph.cli", "serve", "--checkpoint", str(model)]
        self._command += ["--arena", str(arena), "--port", str(port), "--metrics-port", "0"]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL)

    def roll(self) -> None:
        """SIGTERM, the end within its grace, and the next one; raises when it would have been killed."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(self.grace_s) == 0
        self._process = self._start()

    def kill(self) -> None:
        """The end, without a word."""
        self._process.kill()
        self._process.wait()


def ask(stub: Any, number: int) -> str:
    """What one answer says: OK, or the error of a batch's item."""
    asked = request(number)
    if number % 3 == 0:
        stub.Score(asked, timeout=20)
    elif number % 3 == 1:
        answers = stub.ScoreBatch(service_pb2.ScoreBatchRequest(requests=[asked] * 20), timeout=20).results
        return next((one.error.message for one in answers if one.HasField("error")), "OK")
    else:
        stub.Neighborhood(service_pb2.NeighborhoodRequest(request=asked), timeout=20)
    return "OK"


@contextmanager
def load(envoy: Any, callers: int) -> Iterator[Counter[str]]:
    """Callers who ask without a pause and never twice, until the block ends; gives what they heard, by code.

    Each has a method of its own: a score, a batch of them, a neighborhood.
    """
    heard: Counter[str] = Counter()
    stop = threading.Event()

    def call(number: int) -> None:
        with envoy.stub() as stub:
            while not stop.is_set():
                asked_s = time.monotonic()
                try:
                    heard[ask(stub, number)] += 1
                except grpc.RpcError as error:
                    took_s = time.monotonic() - asked_s
                    heard[f"{error.code().name} after {took_s:.1f} s: {error.details()}"] += 1
                time.sleep(0.005)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield heard
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_servers_are_replaced_one_by_one_and_no_request_fails(
    world: Any,
    served_checkpoints: Callable[[str], Path],
    envoy_before: Callable[..., AbstractContextManager[Any]],
    free_ports: Callable[[int], list[int]],
    tmp_path: Path,
) -> None:
    """Each of two servers takes SIGTERM and is started anew on the graph that is there, while callers go on."""
    from temporal_graph.graph import TemporalGraph

    model, arena = tmp_path / "model", tmp_path / "arena"
    shutil.copytree(served_checkpoints("fraud"), model)
    (model / "schema.yaml").write_text(world.schema_text)
    ports = free_ports(2)
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=16 << 20) as graph:
        graph.apply([world.event(number, world.start_us + number) for number in range(50)], backfill=True)
        pods = [Pod(model, arena, port, world.secret) for port in ports]
        try:
            with envoy_before(tmp_path, {"nowgraph_stable": ports}) as envoy, load(envoy, 3) as heard:
                for pod in pods:
                    before = heard["OK"]
                    pod.roll()
                    envoy.until(lambda: envoy.healthy("nowgraph_stable") == 2)
                    assert heard["OK"] > before
        finally:
            for pod in pods:
                pod.kill()
    assert set(heard) == {"OK"}
