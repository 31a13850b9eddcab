"""The gRPC face: deadlines in, status codes out, and nothing else."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import structlog

from model_server.arrivals import came_s
from model_server.errors import (
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    ServerError,
    code_of,
    details_of,
    said,
)
from model_server.in_flight import InFlight
from model_server.metrics import Metrics
from model_server.router import AnyRequest, Router
from model_server.settings import ServerSettings
from model_server.tracing import current_exemplar
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Response = TypeVar("Response")


class PredictionService(service_grpc.PredictionServiceServicer):
    """Each method gives its request a deadline, hands it down, and turns a ServerError into its status."""

    def __init__(
        self,
        *,
        router: Router,
        in_flight: InFlight,
        settings: ServerSettings,
        metrics: Metrics,
    ) -> None:
        self._router = router
        self._in_flight = in_flight
        self._settings = settings
        self._metrics = metrics

    async def Score(self, request: service_pb2.ScoreRequest, context: Context) -> service_pb2.ScoreResponse:  # noqa: N802
        """One row's answer."""
        return await self._answer(
            "Score", request, context, lambda deadline_s: self._router.scoring.score(request, deadline_s)
        )

    async def ScoreBatch(  # noqa: N802
        self, request: service_pb2.ScoreBatchRequest, context: Context
    ) -> service_pb2.ScoreBatchResponse:
        """Many rows' answers, each with its own error; too many rows are refused as a whole."""

        async def work(deadline_s: float) -> service_pb2.ScoreBatchResponse:
            self._check_count(len(request.requests), "rows")
            results = await self._router.scoring.results(request.requests, deadline_s)
            return service_pb2.ScoreBatchResponse(results=results)

        return await self._answer("ScoreBatch", request, context, work)

    async def ScoreStream(  # noqa: N802
        self, request_iterator: AsyncIterator[service_pb2.ScoreStreamRequest], context: Context
    ) -> AsyncIterator[service_pb2.ScoreStreamResponse]:
        """Answers as they are ready.

        At most `stream_inflight_limit` requests are taken before their answers are written, so a client that does not
        read stops being read.
        """
        try:
            scoring = self._router.scoring
        except ServerError as error:
            self._count(self._metrics, "ScoreStream", code_of(error).name)
            await _abort(context, error)
        results: asyncio.Queue[tuple[Metrics, service_pb2.ScoreResult] | None] = asyncio.Queue()
        places = asyncio.Semaphore(self._settings.stream_inflight_limit)

        async def one(request: service_pb2.ScoreRequest) -> None:
            with self._in_flight:
                result = await scoring.result(request, self._deadline_s(context))
                results.put_nowait((self._router.metrics_of(request), result))

        async def read() -> None:
            draining = asyncio.ensure_future(self._in_flight.draining.wait())
            try:
                async with asyncio.TaskGroup() as group:
                    while True:
                        await places.acquire()
                        item = await _next(request_iterator, draining)
                        if item is None:
                            break
                        group.create_task(one(item.request))
            finally:
                draining.cancel()
                results.put_nowait(None)

        reader = asyncio.create_task(read())
        self._in_flight.tasks.add(reader)
        try:
            while (answered := await results.get()) is not None:
                metrics, result = answered
                self._count(metrics, "ScoreStream", _code_name(result))
                yield service_pb2.ScoreStreamResponse(result=result)
                places.release()
            try:
                await reader
            except asyncio.CancelledError:
                if not self._in_flight.ended:
                    raise
            except Exception as error:  # noqa: BLE001 - as in `_answer`
                cause = _cause(error)
                if isinstance(cause, InvalidRequestError):  # bytes that are no message end the stream
                    self._count(self._metrics, "ScoreStream", code_of(cause).name)
                    await _abort(context, cause)
                self._count(self._metrics, "ScoreStream", "INTERNAL")
                await _abort_bug("ScoreStream", context, error)
            if self._in_flight.draining.is_set():
                await _abort(context, DrainingError("the server is stopping: send unanswered requests again"))
        finally:
            self._in_flight.tasks.discard(reader)
            reader.cancel()

    async def Neighborhood(  # noqa: N802
        self, request: service_pb2.NeighborhoodRequest, context: Context
    ) -> service_pb2.NeighborhoodResponse:
        """What the model would see."""
        return await self._answer(
            "Neighborhood",
            request,
            context,
            lambda deadline_s: self._router.inspection.neighborhood(request, deadline_s),
        )

    async def Rank(self, request: service_pb2.RankRequest, context: Context) -> service_pb2.RankResponse:  # noqa: N802
        """One list."""
        return await self._answer(
            "Rank", request, context, lambda deadline_s: self._router.ranking.rank(request, deadline_s)
        )

    async def RankBatch(  # noqa: N802
        self, request: service_pb2.RankBatchRequest, context: Context
    ) -> service_pb2.RankBatchResponse:
        """Many lists, each with its own error; too many are refused as a whole."""

        async def work(deadline_s: float) -> service_pb2.RankBatchResponse:
            self._check_count(len(request.requests), "lists")
            results = await self._router.ranking.results(request.requests, deadline_s)
            return service_pb2.RankBatchResponse(results=results)

        return await self._answer("RankBatch", request, context, work, self._settings.rank_batch_deadline_ms)

    async def Ingest(self, request: service_pb2.IngestRequest, context: Context) -> service_pb2.IngestResponse:  # noqa: N802
        """Publishes an event; answers when Kafka has it."""
        return await self._answer(
            "Ingest", request, context, lambda deadline_s: self._router.ingest(request, deadline_s)
        )

    async def _answer(
        self,
        method: str,
        request: AnyRequest,
        context: Context,
        work: Callable[[float], Awaitable[Response]],
        deadline_ms: int | None = None,
    ) -> Response:
        start_s = came_s()
        metrics = self._router.metrics_of(request)
        try:
            response = await work(self._deadline_s(context, deadline_ms))
        except ServerError as error:
            self._count(metrics, method, code_of(error).name)
            try:
                await _abort(context, error)
            finally:
                if isinstance(error, OverloadedError):
                    metrics.refusal_seconds.labels(method).observe(time.monotonic() - start_s)
        except asyncio.CancelledError:
            if self._in_flight.ended:
                self._count(metrics, method, "UNAVAILABLE")
                await _abort(context, DrainingError("the server had to stop before there was an answer"))
            self._count(metrics, method, "CANCELLED")
            raise
        except Exception as error:  # noqa: BLE001 - a bug must not show a row's values to the caller or the log
            self._count(metrics, method, "INTERNAL")
            await _abort_bug(method, context, error)
        self._count(metrics, method, "OK")
        metrics.request_seconds.labels(method).observe(time.monotonic() - start_s, current_exemplar())
        return response

    def _check_count(self, count: int, things: str) -> None:
        limit = self._settings.batch_request_limit
        if count > limit:
            raise InvalidRequestError("requests", f"at most {limit} {things}, found {count}")

    def _deadline_s(self, context: Context, default_ms: int | None = None) -> float:
        """The moment after which nobody listens: the caller's deadline or the default, whichever comes first."""
        default_s = (default_ms or self._settings.deadline_default_ms) / 1e3
        remaining_s = context.time_remaining()
        return time.monotonic() + (default_s if remaining_s is None else min(remaining_s, default_s))

    @staticmethod
    def _count(metrics: Metrics, method: str, code: str) -> None:
        metrics.requests.labels(method, code).inc()


async def _next(
    requests: AsyncIterator[service_pb2.ScoreStreamRequest], draining: asyncio.Future[Any]
) -> service_pb2.ScoreStreamRequest | None:
    """The stream's next request; None at its end or once the server drains."""
    reading = asyncio.ensure_future(anext(requests, None))
    try:
        await asyncio.wait((reading, draining), return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        reading.cancel()


def _code_name(result: service_pb2.ScoreResult) -> str:
    if result.WhichOneof("result") == "response":
        return "OK"
    return next(code.name for code in grpc.StatusCode if code.value[0] == result.error.code)


async def _abort(context: Context, error: ServerError) -> NoReturn:
    await context.abort(code_of(error), said(error), trailing_metadata=details_of(error))
    raise AssertionError("abort raises")


def _cause(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _abort_bug(method: str, context: Context, error: Exception) -> NoReturn:
    error = _cause(error)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error("request_failed", method=method, error=type(error).__name__, where=where[-6:])
    await context.abort(grpc.StatusCode.INTERNAL, "an unexpected failure; the server's log has the place")
    raise AssertionError("abort raises")
