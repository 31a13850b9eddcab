"""One sender process: reads its part of the schedule, sends on time whatever the answers do, writes what came of it.

    part (due times, requests) ─► sender ─► server
                                    └─► records (send delay, latency, code of each)

It keeps raw records and makes nothing of them while it sends; histograms are made afterwards.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

if not __package__:  # run by its path: after the installed packages, which are what is measured
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from loadtests.load.ticker import Ticker

PART, RECORDS = "part.pickle", "records.npz"
DROPPED = -1
"""In place of a code: too many were unanswered, so it was never sent."""
UNKNOWN = 2
BEHIND_EVERY = 16
"""Sends in a row, when late, before answers get their turn."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one process sends: request `which` of `requests`, `due_us` (int64) after the start."""

    targets: tuple[str, ...]
    connections: int
    in_flight_max: int
    timeout_s: float
    core: int | None
    due_us: np.ndarray
    which: np.ndarray
    requests: tuple[tuple[int, str, bytes], ...]
    """Each with the place of its target, its gRPC method's path and its bytes."""


@dataclass(frozen=True, slots=True)
class Records:
    """Of each request: int64 microseconds of send delay and of latency since it was due, int16 gRPC code or DROPPED."""

    delay_us: np.ndarray
    latency_us: np.ndarray
    code: np.ndarray


async def send(part: Part, *, start_ns: int) -> Records:
    """Sends from `start_ns` of the monotonic clock on; returns when each has its answer, its error, or was dropped."""
    count = len(part.due_us)
    delay_us, latency_us = np.zeros(count, np.int64), np.zeros(count, np.int64)
    code = np.full(count, DROPPED, np.int16)
    channels = [
        [grpc.aio.insecure_channel(target, options=channel_options(number)) for number in range(part.connections)]
        for target in part.targets
    ]
    calls = [
        [channels[target][number].unary_unary(path) for number in range(part.connections)]
        for target, path, _ in part.requests
    ]
    in_flight: set[asyncio.Task[None]] = set()

    async def one(index: int, call: Any, body: bytes, due_ns: int) -> None:
        try:
            await call(body, timeout=part.timeout_s)
            code[index] = 0
        except grpc.aio.AioRpcError as error:
            code[index] = error.code().value[0]
        except grpc.aio.UsageError:
            code[index] = UNKNOWN
        latency_us[index] = (time.monotonic_ns() - due_ns) // 1_000

    with Ticker() as ticker:
        await asyncio.gather(*(channel.channel_ready() for group in channels for channel in group))
        due = (part.due_us * 1_000 + start_ns).tolist()
        which = part.which.tolist()
        for index in range(count):
            now_ns = time.monotonic_ns()
            if now_ns < due[index]:
                await ticker.until(due[index])
                now_ns = time.monotonic_ns()
            elif index % BEHIND_EVERY == 0:
                await asyncio.sleep(0)
            delay_us[index] = (now_ns - due[index]) // 1_000
            if len(in_flight) >= part.in_flight_max:
                continue
            request = which[index]
            call = calls[request][index % part.connections]
            task = asyncio.create_task(one(index, call, part.requests[request][2], due[index]))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
        if in_flight:
            await asyncio.wait(in_flight)
    for group in channels:
        for channel in group:
            await channel.close(None)
    return Records(delay_us, latency_us, code)


def channel_options(number: int) -> list[tuple[str, Any]]:
    """Of one channel of several: with equal arguments they share a connection unless each has a pool of its own."""
    return [("grpc.use_local_subchannel_pool", 1), ("grpc.channel_id", number)]


def main() -> None:
    """`sender.py FOLDER`: says ready, reads when to start (nanoseconds, monotonic), sends, writes records.npz."""
    folder = Path(sys.argv[1])
    part: Part = pickle.loads((folder / PART).read_bytes())
    if part.core is not None:
        os.sched_setaffinity(0, {part.core})
    print("ready", flush=True)
    records = uvloop.run(send(part, start_ns=int(sys.stdin.readline())))
    np.savez(folder / RECORDS, delay_us=records.delay_us, latency_us=records.latency_us, code=records.code)


if __name__ == "__main__":
    main()
