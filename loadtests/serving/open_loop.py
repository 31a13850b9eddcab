"""Load that does not wait for answers: requests leave on a schedule, and latency counts from the intended moment.

A closed loop sends the next request when the last one is answered, so a slow server is asked less just when it is slow
and its tail disappears. Here a request that leaves late because everything is late has waited, and that is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

IN_FLIGHT_MAX = 2_000
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one run. Milliseconds; `server` is the server's own account, from handler entry to answer."""

    offered_per_s: float
    answered_per_s: float
    latency_ms: np.ndarray
    server_ms: np.ndarray
    failed: int
    dropped: int

    def percentile(self, q: float) -> float:
        """Latency from the intended send time that q percent of the answers stay within."""
        return float(np.percentile(self.latency_ms, q)) if len(self.latency_ms) else float("nan")

    def server_percentile(self, q: float) -> float:
        """The same of the server's own account."""
        return float(np.percentile(self.server_ms, q)) if len(self.server_ms) else float("nan")


async def open_loop(
    target: str, requests: Sequence[service_pb2.ScoreRequest], *, rate_per_s: float, seconds: float
) -> Load:
    """Sends at a constant rate whatever the answers do; beyond IN_FLIGHT_MAX unanswered, drops are counted."""
    latency_ms: list[float] = []
    server_ms: list[float] = []
    tasks: set[asyncio.Task[None]] = set()
    failed = dropped = 0

    async with grpc.aio.insecure_channel(target) as channel:
        stub = service_grpc.PredictionServiceStub(channel)
        await stub.Score(requests[0], timeout=TIMEOUT_S)

        async def one(request: service_pb2.ScoreRequest, intended_s: float) -> None:
            nonlocal failed
            try:
                answer = await stub.Score(request, timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError:
                failed += 1
                return
            latency_ms.append((time.perf_counter() - intended_s) * 1e3)
            server_ms.append(answer.timing.total_us / 1e3)

        count = int(rate_per_s * seconds)
        start_s = time.perf_counter() + 0.01
        for number in range(count):
            intended_s = start_s + number / rate_per_s
            wait_s = intended_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if len(tasks) >= IN_FLIGHT_MAX:
                dropped += 1
                continue
            task = asyncio.create_task(one(requests[number % len(requests)], intended_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        took_s = time.perf_counter() - start_s
    return Load(rate_per_s, len(latency_ms) / took_s, np.array(latency_ms), np.array(server_ms), failed, dropped)


async def closed_loop(
    target: str, requests: Sequence[service_pb2.ScoreRequest], *, in_flight: int, seconds: float
) -> float:
    """Answers per second when `in_flight` requests are always under way: the capacity."""
    answered = 0
    async with grpc.aio.insecure_channel(target) as channel:
        stub = service_grpc.PredictionServiceStub(channel)
        until_s = time.perf_counter() + seconds

        async def worker(first: int) -> None:
            nonlocal answered
            number = first
            while time.perf_counter() < until_s:
                await stub.Score(requests[number % len(requests)], timeout=TIMEOUT_S)
                number += in_flight
                answered += 1

        start_s = time.perf_counter()
        await asyncio.gather(*(worker(number) for number in range(in_flight)))
        return answered / (time.perf_counter() - start_s)
