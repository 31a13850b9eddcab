"""The bench of a server on a device: what counts as an answer, how busy a GPU was, what is said where there is none."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
from rich.console import Console

from loadtests.serving import bench_device
from loadtests.serving.bench_device import best_of, busy_shares, table_of
from loadtests.serving.rows_client import Part, send
from model_server.metrics import Metrics
from model_server.metrics_endpoint import exposition
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

BENCH = Path(bench_device.__file__)
ROW = {"offered_per_s": 20_000.0, "p50_ms": 2.0, "gpu_busy": 0.25, "server_cores": 7.5, "rows": 64}
ROW |= {"sample_us": 1.0, "collate_us": 10.0, "forward_us": 20.0}


def test_without_the_device_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so and ends well: `make bench-gpu` runs on any machine."""
    monkeypatch.setattr(sys, "argv", ["bench_device.py", "--device", "cuda:97"])
    bench_device.main()
    assert "no cuda:97 on this machine: nothing was measured" in capsys.readouterr().out


class Refusing:
    """A server that refuses every third row inside of calls that it answers, and counts rows as the real one does."""

    def __init__(self) -> None:
        self.metrics = Metrics().for_task("", "fraud")
        self._server = grpc.server(ThreadPoolExecutor(8))
        handlers = {
            "ScoreBatch": grpc.unary_unary_rpc_method_handler(
                lambda asked, _: service_pb2.ScoreBatchResponse(results=map(self._row, asked.requests)),
                request_deserializer=service_pb2.ScoreBatchRequest.FromString,
                response_serializer=service_pb2.ScoreBatchResponse.SerializeToString,
            ),
            "ScoreStream": grpc.stream_stream_rpc_method_handler(
                lambda asked, _: (service_pb2.ScoreStreamResponse(result=self._row(one.request)) for one in asked),
                request_deserializer=service_pb2.ScoreStreamRequest.FromString,
                response_serializer=service_pb2.ScoreStreamResponse.SerializeToString,
            ),
        }
        service = grpc.method_handlers_generic_handler("nowgraph.v1.PredictionService", handlers)
        self._server.add_generic_rpc_handlers([service])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        self._web = ThreadingHTTPServer(("127.0.0.1", 0), self._page())
        threading.Thread(target=self._web.serve_forever, daemon=True).start()
        self.metrics_url = f"http://127.0.0.1:{self._web.server_port}/metrics"

    def cpu_s(self) -> float:
        """As `worlds.Served`."""
        return time.process_time()

    def close(self) -> None:
        """Ends both."""
        self._server.stop(None).wait()
        self._web.shutdown()
        self._web.server_close()

    def _row(self, request: service_pb2.ScoreRequest) -> service_pb2.ScoreResult:
        number = request.request_id
        if int(number) % 3 == 0:
            return service_pb2.ScoreResult(error=service_pb2.ScoreError(request_id=number, code=8))
        self.metrics.model_rows.inc()
        for stage, seconds in (("sample", 1e-6), ("collate", 20e-6), ("forward", 300e-6)):
            self.metrics.stages[stage].observe(seconds)
        return service_pb2.ScoreResult(response=service_pb2.ScoreResponse(request_id=number))

    def _page(self) -> type[BaseHTTPRequestHandler]:
        registry = self.metrics.registry

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(exposition([registry], openmetrics=False))

            def log_message(self, *_: object) -> None:
                pass

        return Page


@pytest.fixture(scope="module")
def refusing() -> Iterator[Refusing]:
    """Serves for the tests of this file."""
    with closing(Refusing()) as server:
        yield server


@pytest.mark.parametrize(("method", "rows"), [("ScoreBatch", 6), ("ScoreStream", 1)])
async def test_a_row_that_was_refused_has_no_latency(refusing: Refusing, method: str, rows: int) -> None:
    """Of twelve rows in an answered call or stream four were refused; the others count from when they were due."""
    due_us = np.arange(12 // rows, dtype=np.int64) * 1_000
    requests = tuple(service_pb2.ScoreRequest().SerializeToString() for _ in range(12))
    part = Part(refusing.target, method, 2, rows, due_us, requests)
    latency_us = await send(part, time.monotonic_ns)
    assert latency_us.shape == (12 // rows, rows)
    assert np.flatnonzero(latency_us.reshape(-1) < 0).tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize("method", ["ScoreBatch", "ScoreStream"])
def test_several_processes_send_and_stages_are_per_row(refusing: Refusing, method: str) -> None:
    """A third of what was offered is not among the scores; the server's own figures are divided by its rows."""
    options = argparse.Namespace(device="cpu", workers=1, clients=2, connections=1, rows=6, seconds=0.5)
    row = bench_device.measured(cast("Any", refusing), method, 240.0, options)
    assert 0 < float(row["scores_per_s"]) <= 240 * 2 / 3 + 1
    assert [row[f"{stage}_us"] for stage in bench_device.STAGES] == pytest.approx([1.0, 20.0, 300.0])
    assert float(row["p99_ms"]) >= float(row["p50_ms"]) > 0
    assert np.isnan(row["gpu_busy"])


def test_what_nvidia_smi_says_is_kept_with_its_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of time, in turn, of the GPU that is used; words in place of numbers are left out; a CPU has none."""
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho $* > $0.asked\necho 40\necho '[N/A]'\necho 100\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    began_s = time.monotonic()
    with busy_shares("cuda:1") as shares:
        while len(shares) < 2 and time.monotonic() < began_s + 30:
            time.sleep(0.01)
    assert [share for _, share in shares] == [0.4, 1.0]
    assert began_s < shares[0][0] <= shares[1][0] <= time.monotonic()
    assert (tmp_path / "nvidia-smi.asked").read_text().startswith("-i 1 --query-gpu=utilization.gpu")
    with busy_shares("cpu") as none:
        pass
    assert none == []


def test_the_table_names_the_device_and_the_goal_counts_what_is_in_time() -> None:
    """The best rate whose p99 is within ten milliseconds, of one method."""
    rows = [
        ROW | {"method": "ScoreBatch", "scores_per_s": 20_100.0, "p99_ms": 9.0},
        ROW | {"method": "ScoreBatch", "scores_per_s": 25_000.0, "p99_ms": 11.0},
        ROW | {"method": "ScoreStream", "scores_per_s": 900.0, "p99_ms": 12.0, "gpu_busy": float("nan")},
    ]
    assert [best_of(rows, method) for method in ("ScoreBatch", "ScoreStream")] == [20_100.0, 0.0]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table_of("A GPU", rows, 8))
    text = console.export_text()
    assert "A GPU, 8 server processes" in text
    assert all(word in text for word in ("20,100", "25%", "none", "12.0"))


@pytest.mark.faults
def test_the_processor_runs_the_same_path() -> None:
    """Writer, server with its device set, client processes, both methods, figures of every stage."""
    options = ["--device", "cpu", "--workers", "1", "--clients", "1", "--rows", "8", "--rates", "40"]
    options += ["--seconds", "2", "--history", "5000", "--json"]
    command = [sys.executable, "-P", str(BENCH), *options]
    document = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=280, text=True).stdout)
    assert document["device"] == "the processor"
    assert [row["method"] for row in document["rows"]] == ["ScoreBatch", "ScoreStream"]
    assert all(row["scores_per_s"] > 0 for row in document["rows"])
    assert all(row[f"{stage}_us"] > 0 for row in document["rows"] for stage in ("sample", "collate", "forward"))
