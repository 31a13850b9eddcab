"""The path of one score, without gRPC: read, wait for freshness, ask the engine, answer, record.

ScoreRequest -> RequestReader -> Freshness -> Engine -> ScoreResponse -> predictions topic
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from graph_transformer.target import Target
from model_server.answer import answer_of
from model_server.engine import Engine
from model_server.errors import DeadlinePassedError, ServerError, code_of, number_of
from model_server.freshness import Freshness
from model_server.metrics import Metrics
from model_server.predictions import Predictions
from model_server.request import AskedRow, RequestReader
from model_server.scorer import Question, Scored
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

# Rows of one batch that are read before other callers get their turn on the event loop: about a millisecond.
READ_CHUNK = 32


class Scoring:
    """Answers score requests. Deadlines are time.monotonic instants; errors are ServerError. Used by the event loop."""

    def __init__(
        self,
        *,
        reader: RequestReader,
        freshness: Freshness,
        engine: Engine[Question, Scored],
        predictions: Predictions,
        metrics: Metrics,
        task: str,
        target: Target,
    ) -> None:
        self._reader = reader
        self._freshness = freshness
        self._engine = engine
        self._predictions = predictions
        self._metrics = metrics
        self._task = task
        self._target = target

    async def score(self, request: service_pb2.ScoreRequest, deadline_s: float) -> service_pb2.ScoreResponse:
        """One answer, or the ServerError that says why there is none."""
        start_s = time.monotonic()
        asked = self._reader.read(request)
        self._predictions.admit()
        waited_s = await self._freshness.wait_for(request, deadline_s)
        try:
            async with asyncio.timeout(deadline_s - time.monotonic()):
                question = Question(asked.event, asked.cutoff_time_us, deadline_s, asked.key)
                scored = await self._engine.submit(question)
        except TimeoutError:
            raise DeadlinePassedError("the deadline passed before the answer was there") from None
        return self._answer(asked, scored, waited_s, start_s)

    async def result(self, request: service_pb2.ScoreRequest, deadline_s: float) -> service_pb2.ScoreResult:
        """As `score`, with the error as a value: one item of a batch or stream."""
        try:
            return service_pb2.ScoreResult(response=await self.score(request, deadline_s))
        except ServerError as error:
            return service_pb2.ScoreResult(error=error_of(request.request_id, error))

    async def results(
        self, requests: Sequence[service_pb2.ScoreRequest], deadline_s: float
    ) -> list[service_pb2.ScoreResult]:
        """Every item's answer or error, in the order of the requests; they are batched with whatever else waits."""
        tasks: list[asyncio.Task[service_pb2.ScoreResult]] = []
        async with asyncio.TaskGroup() as group:  # when the caller goes away, so does all that was begun for it
            for start in range(0, len(requests), READ_CHUNK):
                chunk = requests[start : start + READ_CHUNK]
                tasks += [group.create_task(self.result(request, deadline_s)) for request in chunk]
                await asyncio.sleep(0)
        return [task.result() for task in tasks]

    def _answer(self, asked: AskedRow, scored: Scored, waited_s: float, start_s: float) -> service_pb2.ScoreResponse:
        total_s = time.monotonic() - start_s
        start_encode_s = time.perf_counter()
        response = answer_of(asked, scored, task=self._task, target=self._target, waited_s=waited_s, total_s=total_s)
        self._metrics.stages["encode"].observe(time.perf_counter() - start_encode_s)
        self._predictions.publish(asked.row, response)
        if waited_s:
            self._metrics.stages["freshness"].observe(waited_s)
        self._metrics.stages["total"].observe(total_s)
        if scored.history.history_count == 0:
            self._metrics.empty_history.inc()
        return response


def error_of(request_id: str, error: ServerError) -> service_pb2.ScoreError:
    """The wire's form of an item's error; names the field when the request was wrong."""
    return service_pb2.ScoreError(
        request_id=request_id,
        code=number_of(code_of(error)),
        message=str(error),
        field=getattr(error, "field", ""),
    )
