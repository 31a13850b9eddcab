"""One client process of `bench_device.py`: rows through ScoreBatch or ScoreStream, sent when due, answers counted.

    part.pickle ─► calls or streams ─► server ─► records.npz: each row's latency since it was due; -1: no answer

Every answer is read: a batch whose rows were refused is answered too, and must not count.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import uvloop

if not __package__:  # run by its path: after the installed packages, which are what is measured
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from loadtests.load.sender import PART, RECORDS, channel_options
from loadtests.load.ticker import Ticker
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

SERVICE = "/nowgraph.v1.PredictionService/"
TIMEOUT_S = 2.0
"""Of a call; and of a stream, how long after the last row was due its answers are waited for."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one process sends: `rows` rows at each moment of `due_us` (int64, after the start), by one call or a stream.

    requests: serialized ScoreRequests, taken in turns.
    """

    target: str
    method: str
    connections: int
    rows: int
    due_us: np.ndarray
    requests: tuple[bytes, ...]


Begin = Callable[[], int]
"""Called once everything is prepared; gives the start, in nanoseconds of the monotonic clock."""


async def send(part: Part, begin: Begin) -> np.ndarray:
    """Sends all that is due; returns int64[moments, rows], latencies in us, -1 without an answer."""
    channels = [grpc.aio.insecure_channel(part.target, options=channel_options(at)) for at in range(part.connections)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    latency_us = np.full((len(part.due_us), part.rows), -1, dtype=np.int64)
    await (_batches if part.method == "ScoreBatch" else _streams)(part, channels, begin, latency_us)
    for channel in channels:
        await channel.close(None)
    return latency_us


def _asked(part: Part, place: int) -> service_pb2.ScoreRequest:
    asked = service_pb2.ScoreRequest.FromString(part.requests[place % len(part.requests)])
    asked.priority = service_pb2.PRIORITY_INTERACTIVE
    asked.request_id = str(place)
    return asked


async def _batches(part: Part, channels: list[grpc.aio.Channel], begin: Begin, latency_us: np.ndarray) -> None:
    calls = [channel.unary_unary(SERVICE + "ScoreBatch") for channel in channels]
    count = max(1, len(part.requests) // part.rows)
    bodies = [
        service_pb2.ScoreBatchRequest(
            requests=[_asked(part, start * part.rows + at) for at in range(part.rows)]
        ).SerializeToString()
        for start in range(count)
    ]

    async def one(moment: int) -> None:
        with suppress(grpc.aio.AioRpcError):
            said = await calls[moment % len(calls)](bodies[moment % count], timeout=TIMEOUT_S)
            took_us = (time.monotonic_ns() - int(due_ns[moment])) // 1_000
            results = service_pb2.ScoreBatchResponse.FromString(said).results
            latency_us[moment, [at for at, result in enumerate(results) if result.HasField("response")]] = took_us

    tasks = []
    due_ns = part.due_us * 1_000 + begin()
    with Ticker() as ticker:
        for moment, due in enumerate(due_ns.tolist()):
            await ticker.until(due)
            tasks.append(asyncio.create_task(one(moment)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)


async def _streams(part: Part, channels: list[grpc.aio.Channel], begin: Begin, latency_us: np.ndarray) -> None:
    queues: list[asyncio.Queue[bytes | None]] = [asyncio.Queue() for _ in channels]
    flat, left = latency_us.reshape(-1), latency_us.size
    done = asyncio.Event()

    async def rows(queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        while (row := await queue.get()) is not None:
            yield row

    async def one(channel: grpc.aio.Channel, queue: asyncio.Queue[bytes | None]) -> None:
        nonlocal left
        with suppress(grpc.aio.AioRpcError):
            async for said in channel.stream_stream(SERVICE + "ScoreStream")(rows(queue)):
                now_ns = time.monotonic_ns()
                result = service_pb2.ScoreStreamResponse.FromString(said).result
                left -= 1
                if result.HasField("response"):
                    place = int(result.response.request_id)
                    flat[place] = (now_ns - int(due_ns[place // part.rows])) // 1_000
                if not left:
                    done.set()

    made = [
        service_pb2.ScoreStreamRequest(request=_asked(part, place)).SerializeToString() for place in range(flat.size)
    ]
    due_ns = part.due_us * 1_000 + begin()
    streams = [asyncio.create_task(one(*each)) for each in zip(channels, queues, strict=True)]
    with Ticker() as ticker:
        for moment, due in enumerate(due_ns.tolist()):
            await ticker.until(due)
            for place in range(moment * part.rows, (moment + 1) * part.rows):
                queues[place % len(queues)].put_nowait(made[place])
            await asyncio.sleep(0)
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), TIMEOUT_S)
    for queue in queues:
        queue.put_nowait(None)
    await asyncio.wait(streams, timeout=TIMEOUT_S)


def main() -> None:
    """`rows_client.py FOLDER`: says ready, reads when to start (nanoseconds, monotonic), sends, writes records.npz."""
    folder = Path(sys.argv[1])
    part: Part = pickle.loads((folder / PART).read_bytes())

    def begin() -> int:
        print("ready", flush=True)
        return int(sys.stdin.readline())

    np.savez(folder / RECORDS, latency_us=uvloop.run(send(part, begin)))


if __name__ == "__main__":
    main()
