"""The path of one score, without gRPC: read, wait for freshness, ask the engine, answer, record.

ScoreRequest -> quota, admission -> RequestReader -> Freshness -> Engine -> ScoreResponse -> predictions topic
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from functools import partial

from graph_transformer.target import Target
from model_server.answer import Shared, answer_of
from model_server.backlog import Priority
from model_server.degraded_answer import GraphBound, RuleAnswers
from model_server.engine import Engine
from model_server.errors import OverloadedError, ServerError, code_of, number_of, said
from model_server.freshness import Freshness
from model_server.idempotency import Repeats
from model_server.metrics import Metrics
from model_server.predictions import Predictions
from model_server.quotas import Quotas
from model_server.request import AskedRow, RequestReader, priority_of
from model_server.scorer import Question, Scored
from model_server.tracing import CallTrace, current_call, current_exemplar
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
        quotas: Quotas,
        metrics: Metrics,
        task: str,
        target: Target,
        inflight_limit: int,
        bound: GraphBound | None = None,
        rules: RuleAnswers | None = None,
        repeats: Repeats | None = None,
    ) -> None:
        """`inflight_limit` bounds the rows of one batch that wait for the engine at a time.

        `bound` and `rules` are the task's degraded policy; `repeats` gives a request id that comes again its answer.
        """
        self._reader = reader
        self._freshness = freshness
        self._engine = engine
        self._predictions = predictions
        self._quotas = quotas
        self._metrics = metrics
        self._shared = Shared(task, target)
        self._inflight_limit = inflight_limit
        self._bound = bound
        self._rules = rules
        self._repeats = repeats

    async def score(
        self,
        request: service_pb2.ScoreRequest,
        deadline_s: float,
        default: Priority = Priority.INTERACTIVE,
        *,
        remembered: bool = True,
    ) -> service_pb2.ScoreResponse:
        """One answer, or the ServerError that says why there is none; `default` is the class of one that names none.

        Without `remembered` the request's id only matches the answer to it.
        """
        if self._repeats is None or not remembered or not request.request_id:
            return await self._score(request, deadline_s, default)
        work = partial(self._score, request, deadline_s, default)
        return await self._repeats.answer(request, service_pb2.ScoreResponse, deadline_s, work)

    async def _score(
        self, request: service_pb2.ScoreRequest, deadline_s: float, default: Priority
    ) -> service_pb2.ScoreResponse:
        start_s = time.monotonic()
        priority = priority_of(request, default)
        self._quotas.admit(request)
        self._predictions.admit()
        if self._rules is None:
            return await self._ask(request, deadline_s, priority, start_s)
        try:
            return await self._ask(request, self._rules.model_deadline_s(deadline_s), priority, start_s)
        except ServerError as error:
            return self._rules.answer(request, error, start_s)

    async def _ask(
        self, request: service_pb2.ScoreRequest, deadline_s: float, priority: Priority, start_s: float
    ) -> service_pb2.ScoreResponse:
        self._engine.admit(deadline_s, priority)  # before it costs anything to read
        asked = self._reader.read(request)
        waited_s = await self._freshness.wait_for(request, deadline_s)
        degraded = None if self._bound is None else self._bound.check()
        question = Question(asked.event, asked.cutoff_time_us, deadline_s, asked.key)

        def finish(scored: Scored) -> service_pb2.ScoreResponse:
            self._freshness.hold(request, scored.position.offsets)
            return self._answer(asked, scored, waited_s, start_s, degraded)

        return await self._engine.ask_finished(question, finish, priority, admitted=not waited_s)

    async def result(
        self, request: service_pb2.ScoreRequest, deadline_s: float, default: Priority = Priority.INTERACTIVE
    ) -> service_pb2.ScoreResult:
        """As `score`, with the error as a value: one item of a stream, whose ids only match answers to requests."""
        return await self._result(self.score(request, deadline_s, default, remembered=False), request)

    async def _result(
        self, answer: Awaitable[service_pb2.ScoreResponse], request: service_pb2.ScoreRequest
    ) -> service_pb2.ScoreResult:
        try:
            return service_pb2.ScoreResult(response=await answer)
        except ServerError as error:
            return service_pb2.ScoreResult(error=error_of(request.request_id, error))

    async def results(
        self, requests: Sequence[service_pb2.ScoreRequest], deadline_s: float
    ) -> list[service_pb2.ScoreResult]:
        """Every item's answer or error, in the order of the requests; a few at a time, batched with what else waits.

        Raises OverloadedError where not even the first of them would be taken: refusing a thousand rows one by one
        would cost the time that others' answers need.
        """
        if requests and self._rules is None:  # a rule may answer what the model cannot
            self._engine.admit(deadline_s, priority_of(requests[0], Priority.BATCH))
        places = asyncio.Semaphore(self._inflight_limit)

        async def one(request: service_pb2.ScoreRequest) -> service_pb2.ScoreResult:
            try:
                return await self._result(self.score(request, deadline_s, Priority.BATCH), request)
            finally:
                places.release()

        tasks: list[asyncio.Task[service_pb2.ScoreResult]] = []
        async with asyncio.TaskGroup() as group:  # when the caller goes away, so does all that was begun for it
            for number, request in enumerate(requests):
                await places.acquire()
                tasks.append(group.create_task(one(request)))
                if number % READ_CHUNK == READ_CHUNK - 1:
                    await asyncio.sleep(0)
        return [task.result() for task in tasks]

    def _answer(
        self,
        asked: AskedRow,
        scored: Scored,
        waited_s: float,
        start_s: float,
        degraded: service_pb2.Degraded | None,
    ) -> service_pb2.ScoreResponse:
        total_s = time.monotonic() - start_s
        start_encode_s = time.perf_counter()
        response = answer_of(asked, scored, self._shared, waited_s=waited_s, total_s=total_s)
        if degraded is not None:
            response.degraded.CopyFrom(degraded)
        encode_s = time.perf_counter() - start_encode_s
        self._metrics.stages["encode"].observe(encode_s)
        if (call := current_call()) is not None:
            trace_score(call, scored, waited_s=waited_s, total_s=total_s, encode_s=encode_s)
        self._predictions.publish(asked.row, response, scored.shadow)
        if waited_s:
            self._metrics.stages["freshness"].observe(waited_s)
        self._metrics.stages["total"].observe(total_s, current_exemplar())
        if scored.history.history_count == 0:
            self._metrics.empty_history.inc()
        return response


def trace_score(call: CallTrace, scored: Scored, *, waited_s: float, total_s: float, encode_s: float) -> None:
    """Writes the spans of a score's stages."""
    stages = scored.stages
    call.item(
        "score",
        total_s=total_s,
        encode_s=encode_s,
        stages_us=(
            ("freshness", round(waited_s * 1e6)),
            ("queue", stages.queue_us),
            ("sample", stages.sample_us),
            ("collate", stages.collate_us),
            ("forward", stages.forward_us),
        ),
        attributes={
            "nowgraph.model_version": scored.model_version,
            "nowgraph.history_count": scored.history.history_count,
            "nowgraph.graph_sequence": scored.position.sequence,
        },
    )


def error_of(request_id: str, error: ServerError) -> service_pb2.ScoreError:
    """The wire's form of an item's error; names the field when the request was wrong."""
    return service_pb2.ScoreError(
        request_id=request_id,
        code=number_of(code_of(error)),
        message=said(error),
        field=getattr(error, "field", ""),
        retry_after_us=round(error.retry_after_s * 1e6) if isinstance(error, OverloadedError) else None,
    )
