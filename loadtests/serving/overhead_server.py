"""A server's process of the overhead bench: the whole server, or one with its inner parts left out, on one core.

    echo      bare grpc.aio: a service as protoc generates it, whose Score gives back the request's id and time
    bytes     barer still: one method found by name, the bytes that came go back
    batcher   the server, with neighborhoods made beforehand and answers of zeros: codec, queue, batches, answers
    collate   the server, with sampling and collate, and answers of zeros
    model     the server

Prints `port N`, serves until its input ends, then prints how late the event loop ran what was due, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # after the installed packages, which are what is measured

import grpc
import numpy as np
import torch
import uvloop

from graph_transformer.encoding.collate import collate
from graph_transformer.predictor import Prediction, Predictor, answer
from graph_transformer.target import Target
from loadtests.serving.light_client import first_in_line
from model_server.generation import Generations, Serving
from model_server.server import Server
from model_server.settings import ServerSettings
from online_sampler.neighborhood import Neighborhood
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc
from temporal_graph.schema import load_schema
from temporal_graph.view import GraphView

SERVICE = "nowgraph.v1.PredictionService"
# How often the event loop is asked how late it is.
PROBE_S = 0.002


class Silent(Predictor):
    """Answers zeros; collates before, or not even that."""

    collates = True

    def predict(self, neighborhood: Neighborhood) -> Prediction:
        """Zeros for every seed."""
        if self.collates:
            with torch.inference_mode():
                collate(neighborhood, self._encoding)
        return answer(self.task.target, np.zeros((len(neighborhood.cutoff_time_us), self.task.target.outputs)))


class Prepared:
    """A sampler whose neighborhoods, of seeds alone, are made before the run."""

    def __init__(self, sampler: Any, target: Target, limit: int) -> None:
        self.view = sampler.view
        keys = [-(2**62) + number for number in range(limit)]
        cutoff = np.zeros(limit, dtype=np.int64)
        self._made = [sampler.sample_keys(target.table, keys[:n], cutoff[:n]) for n in range(limit + 1)]

    def sample_events(self, events: Sequence[bytes], _: Any) -> Neighborhood:
        """The neighborhood of as many seeds."""
        return self._made[len(events)]


def serving_of(options: argparse.Namespace, settings: ServerSettings) -> Serving:
    """What the server of this kind serves."""
    view = GraphView.attach(load_schema(options.schema), options.arena)
    kind: type[Predictor] = Predictor if options.kind == "model" else Silent
    predictor = kind.load(options.checkpoint, view, threads=1)
    serving = Serving.over(view, predictor)
    if isinstance(predictor, Silent) and options.kind == "batcher":
        predictor.collates = False
        prepared: Any = Prepared(serving.sampler, predictor.task.target, settings.batch_limit)
        serving = replace(serving, sampler=prepared)
    return serving


async def probe(late_ms: list[float]) -> None:
    """Notes how late each turn of the loop came."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + PROBE_S
        await asyncio.sleep(PROBE_S)
        late_ms.append((loop.time() - due_s) * 1e3)


async def until_told() -> None:
    """Returns when standard input ends; each line before that empties the notes."""
    late_ms: list[float] = []
    noting = asyncio.create_task(probe(late_ms))
    while await asyncio.to_thread(sys.stdin.readline):
        stalls = np.array(late_ms or [0.0])
        late_ms.clear()
        print(f"stall {np.percentile(stalls, 99):.3f}", flush=True)
    noting.cancel()


class Echo(service_grpc.PredictionServiceServicer):
    """Answers what it was asked."""

    async def Score(self, request: service_pb2.ScoreRequest, _: Any) -> service_pb2.ScoreResponse:  # noqa: N802
        """The id and the time."""
        return service_pb2.ScoreResponse(request_id=request.request_id, cutoff_time_us=request.row.event_time_us)


async def run_echo(kind: str) -> None:
    """The floor: what any server on grpc.aio pays."""

    async def same(request: bytes, _: Any) -> bytes:
        return request

    server = grpc.aio.server()
    if kind == "echo":
        service_grpc.add_PredictionServiceServicer_to_server(Echo(), server)
    else:
        methods = {"Score": grpc.unary_unary_rpc_method_handler(same)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"port {port}", flush=True)
    await until_told()
    await server.stop(None)


async def run_server(options: argparse.Namespace) -> None:
    """Our server, whole or in part."""
    settings = ServerSettings(port=0, metrics_port=0, batch_limit=options.batch_limit)
    serving = serving_of(options, settings)
    server = Server(Generations(serving), settings, privacy=None, predictions_topic="predictions")
    await server.start()
    gc.collect()  # as model_server.attached does
    gc.freeze()
    print(f"port {server.port}", flush=True)
    await until_told()
    await server.drain()


def main() -> None:
    """Serves one kind on one core."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("echo", "bytes", "batcher", "collate", "model"), required=True)
    parser.add_argument("--schema", type=Path, required=True)
    parser.add_argument("--arena", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--batch-limit", type=int, default=ServerSettings().batch_limit)
    parser.add_argument("--core", type=int, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    first_in_line()
    uvloop.run(run_echo(options.kind) if options.kind in ("echo", "bytes") else run_server(options))


if __name__ == "__main__":
    main()
