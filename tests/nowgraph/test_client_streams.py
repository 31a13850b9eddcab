from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import AsyncClient, Client, DeadlineError, Row, Score, UnavailableError
from nowgraph.client_streams import ATTEMPTS, stream_again
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

ROWS, DRAINED_AT, GONE_AT = 300, 100, 200


class Pair:
    """Two servers of one graph, of which the one that answers is drained while a stream goes on."""

    def __init__(self, world: Any, stack: ExitStack) -> None:
        settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=20_000, drain_notice_s=0.0)
        self._time_us = world.start_us + 10**10
        self._both = [stack.enter_context(BackgroundServer(lambda: world.server(settings))) for _ in range(2)]
        self.target = "ipv4:" + ",".join(one.target for one in self._both)
        self._draining: threading.Thread | None = None

    def row(self, number: int) -> Row:
        """The row of a number; where it is time, whoever answers begins to drain, and later is gone."""
        if number == DRAINED_AT:
            until_s = time.monotonic() + 30
            while not self._answered(busier := max(self._both, key=self._answered)):
                assert time.monotonic() < until_s
                time.sleep(0.01)
            self._draining = threading.Thread(target=busier.close)
            self._draining.start()
        if number == GONE_AT:
            self._drained()
        return Row("transactions", number, {"customer_id": 3}, self._time_us)

    def _drained(self) -> None:
        assert self._draining is not None
        self._draining.join(30)
        assert not self._draining.is_alive()

    @staticmethod
    def _answered(server: BackgroundServer) -> float:
        labels = {"method": "ScoreStream", "code": "OK"}
        return server.server.metrics.registry.total("nowgraph_requests_total", **labels)


@pytest.mark.integration
def test_a_stream_goes_on_at_another_server_when_its_own_drains(world: Any) -> None:
    """Every row has one answer: none is lost on the way, and none comes twice."""
    with ExitStack() as stack:
        pair = Pair(world, stack)
        client = stack.enter_context(Client(pair.target))

        def rows() -> Iterator[Row]:
            for number in range(ROWS):
                time.sleep(0.002)
                yield pair.row(number)

        answers = list(client.score_stream(rows(), timeout_s=60))
    assert all(isinstance(one, Score) for one in answers)
    assert Counter(one.request_id for one in answers) == Counter(map(str, range(ROWS)))


@pytest.mark.integration
async def test_an_async_stream_goes_on_too(world: Any) -> None:
    """As a blocking client's."""
    with ExitStack() as stack:
        pair = Pair(world, stack)

        async def rows() -> AsyncIterator[Row]:
            for number in range(ROWS):
                await asyncio.sleep(0.002)
                yield await asyncio.to_thread(pair.row, number)

        async with AsyncClient(pair.target) as client:
            answers = [one async for one in client.score_stream(rows(), timeout_s=60)]
    assert all(isinstance(one, Score) for one in answers)
    assert Counter(one.request_id for one in answers) == Counter(map(str, range(ROWS)))


def test_without_a_server_a_stream_ends() -> None:
    """After some tries, or when its time is over."""
    with Client("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError):
            list(client.score_stream([Row("transactions", 1)]))
        with pytest.raises((UnavailableError, DeadlineError)):
            list(client.score_stream([Row("transactions", 1)], timeout_s=0.05))


class Ended(grpc.RpcError):
    """How a stream ended."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = "") -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


def numbered(number: int) -> service_pb2.ScoreStreamRequest:
    """A row whose id is its number."""
    return service_pb2.ScoreStreamRequest(request=service_pb2.ScoreRequest(request_id=str(number)))


def answer(request: service_pb2.ScoreStreamRequest) -> service_pb2.ScoreStreamResponse:
    """The answer to a row."""
    response = service_pb2.ScoreResponse(request_id=request.request.request_id)
    return service_pb2.ScoreStreamResponse(result=service_pb2.ScoreResult(response=response))


def test_a_row_that_a_dead_stream_waited_for_is_the_next_ones() -> None:
    """gRPC's thread takes it from the caller after its stream has ended: it is sent on the next stream, once."""
    comes, waits = threading.Event(), threading.Event()
    threads, sent = [], []

    def rows() -> Iterator[service_pb2.ScoreStreamRequest]:
        yield numbered(0)
        yield numbered(1)
        waits.set()
        comes.wait(30)
        yield numbered(2)
        yield numbered(3)

    def call(requests: Iterator[Any], _: float | None) -> Iterator[Any]:
        if not threads:  # the first stream: answers one row, waits for a third on its thread, and dies
            yield answer(next(requests))
            next(requests)
            threads.append(threading.Thread(target=lambda: sent.extend(requests)))
            threads[0].start()
            assert waits.wait(30)
            raise Ended
        yield answer(next(requests))
        comes.set()
        yield from map(answer, requests)

    results = [one.response.request_id for one in stream_again(call, rows(), None)]
    threads[0].join(30)
    assert results == ["0", "1", "2", "3"]
    assert sent == []


def test_rows_of_one_id_are_all_answered() -> None:
    """Ids are the caller's: two rows may have the same one."""
    streams = 0

    def call(requests: Iterator[Any], _: float | None) -> Iterator[Any]:
        nonlocal streams
        streams += 1
        taken = [next(requests) for _ in range(3)] if streams == 1 else list(requests)
        yield answer(taken[0])
        if streams == 1:
            raise Ended
        yield from map(answer, taken[1:])

    rows = iter([numbered(7), numbered(7), numbered(8)])
    assert sorted(one.response.request_id for one in stream_again(call, rows, None)) == ["7", "7", "8"]


@pytest.mark.parametrize(
    ("end", "tries"),
    [
        (Ended(), ATTEMPTS),
        (Ended(grpc.StatusCode.INTERNAL, "Internal error from Core"), ATTEMPTS),  # grpc.aio's, of a row on its way
        (Ended(grpc.StatusCode.INTERNAL, "an unexpected failure"), 1),
        (Ended(grpc.StatusCode.UNAUTHENTICATED), 1),
    ],
)
def test_only_a_server_that_went_away_is_followed_by_another(end: Ended, tries: int) -> None:
    """Any other end is the caller's; and tries without an answer are counted."""
    calls = 0

    def call(requests: Iterator[Any], _: float | None) -> Iterator[Any]:
        nonlocal calls
        calls += 1
        yield from ()
        raise end

    with pytest.raises(Ended):
        list(stream_again(call, iter([numbered(0)]), None))
    assert calls == tries
