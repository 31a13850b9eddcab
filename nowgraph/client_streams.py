"""A stream of rows that outlives the server it was begun on: what has no answer yet is sent again to the next one.

    rows ─► sent, unanswered ─► ScoreStream ─► answers: each row's once
               ^─── UNAVAILABLE: the server drains, or is gone ───┘

Only rows without an answer go to the next server, and an answer comes only from the one that is asked: none is lost and
none comes twice.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Final

import grpc

from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

Request = service_pb2.ScoreStreamRequest
Response = service_pb2.ScoreStreamResponse

# A second and a half without an answer: connections that were closed are made again meanwhile.
ATTEMPTS: Final = 8
FIRST_PAUSE_S: Final = 0.02
PAUSE_MAX_S: Final = 0.5


def stream_again(
    call: Callable[[Iterator[Request], float | None], Iterator[Response]],
    rows: Iterator[Request],
    timeout_s: float | None,
) -> Iterator[service_pb2.ScoreResult]:
    """Yields every row's answer or error; `call` begins a stream over requests, with the time that is left.

    Raises the RpcError of the last stream where there is no next one, or of one that ends otherwise than UNAVAILABLE.
    """
    sent, tries = _Sent(rows), _Tries(timeout_s)
    while True:
        try:
            for response in call(sent.requests(), tries.left_s()):
                tries.answered()
                sent.answered(response.result)
                yield response.result
        except grpc.RpcError as error:
            pause_s = tries.failed(error)
        else:
            return
        time.sleep(pause_s)


async def stream_again_async(
    call: Callable[[AsyncIterator[Request], float | None], AsyncIterator[Response]],
    rows: AsyncIterator[Request],
    timeout_s: float | None,
) -> AsyncGenerator[service_pb2.ScoreResult, None]:
    """As `stream_again`, on an event loop."""
    sent, tries = _AsyncSent(rows), _Tries(timeout_s)
    try:
        while True:
            try:
                async for response in call(sent.requests(), tries.left_s()):
                    tries.answered()
                    sent.answered(response.result)
                    yield response.result
            except grpc.RpcError as error:
                pause_s = tries.failed(error)
            else:
                return
            await asyncio.sleep(pause_s)
    finally:
        sent.close()


class _Tries:
    """How often a stream may be begun again, and the time that is left for all of them."""

    def __init__(self, timeout_s: float | None) -> None:
        self._until_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._failed = 0

    def left_s(self) -> float | None:
        return None if self._until_s is None else max(0.0, self._until_s - time.monotonic())

    def answered(self) -> None:
        self._failed = 0

    def failed(self, error: grpc.RpcError) -> float:
        """The pause before the next try; raises the error where there is none."""
        self._failed += 1
        if not _server_is_gone(error) or self._failed == ATTEMPTS:
            raise error
        return min(PAUSE_MAX_S, FIRST_PAUSE_S * 2.0 ** (self._failed - 1))


def _server_is_gone(error: grpc.RpcError) -> bool:
    """Whether the stream ended with its server, and not by what it was asked."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return True
    # What grpc.aio makes of a row that it was sending when the stream ended, before it has read how that ended.
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"


class _Unanswered:
    """The rows that were sent and have no answer, by id, in the order in which they were sent."""

    def __init__(self) -> None:
        self._by_id: dict[str, deque[Request]] = {}

    def sent(self, request: Request) -> None:
        self._by_id.setdefault(request.request.request_id, deque()).append(request)

    def answered(self, result: service_pb2.ScoreResult) -> None:
        said = result.response if result.WhichOneof("result") == "response" else result.error
        waiting = self._by_id.get(said.request_id)
        if waiting:
            waiting.popleft()
            if not waiting:
                del self._by_id[said.request_id]

    @property
    def all(self) -> list[Request]:
        return [request for waiting in self._by_id.values() for request in waiting]


class _Sent:
    """The rows of a caller, for one stream after another.

    gRPC asks for them on a thread of its own, which may still wait for the next row when its stream has ended: that row
    is the next stream's then.
    """

    def __init__(self, rows: Iterator[Request]) -> None:
        self._rows = rows
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # held while the caller is asked, which may take long
        self._unanswered = _Unanswered()
        self._stream = 0
        self._late: deque[Request] = deque()

    def requests(self) -> Iterator[Request]:
        """What the next stream is to send."""
        with self._lock:
            self._stream += 1
            self._late.clear()  # they are among the unanswered
            return self._give(self._stream, self._unanswered.all)

    def answered(self, result: service_pb2.ScoreResult) -> None:
        with self._lock:
            self._unanswered.answered(result)

    def _give(self, stream: int, again: list[Request]) -> Iterator[Request]:
        yield from again
        while (request := self._next(stream)) is not None:
            yield request

    def _next(self, stream: int) -> Request | None:
        with self._turn:
            with self._lock:
                if stream != self._stream:
                    return None
                if self._late:
                    return self._late.popleft()
            request = next(self._rows, None)
            if request is None:
                return None
            with self._lock:
                self._unanswered.sent(request)
                if stream == self._stream:
                    return request
                self._late.append(request)
                return None


class _AsyncSent:
    """As `_Sent`. A stream that ends may cancel whoever waits for its next row; the waiting itself goes on."""

    def __init__(self, rows: AsyncIterator[Request]) -> None:
        self._rows = rows
        self._unanswered = _Unanswered()
        self._stream = 0
        self._coming: asyncio.Future[Request | None] | None = None

    def requests(self) -> AsyncIterator[Request]:
        """What the next stream is to send."""
        self._stream += 1
        return self._give(self._stream, self._unanswered.all)

    def answered(self, result: service_pb2.ScoreResult) -> None:
        self._unanswered.answered(result)

    def close(self) -> None:
        """Asks for no more rows."""
        if self._coming is not None:
            self._coming.cancel()

    async def _give(self, stream: int, again: list[Request]) -> AsyncIterator[Request]:
        for request in again:
            yield request
        while True:
            if self._coming is None:
                self._coming = asyncio.ensure_future(anext(self._rows, None))
            coming = await asyncio.shield(self._coming)
            if coming is None or stream != self._stream:
                return
            self._coming = None
            self._unanswered.sent(coming)
            yield coming
