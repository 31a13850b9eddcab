"""The path of one list, without gRPC: read, wait for freshness, ask the engine, answer, record.

RankRequest -> quota, admission -> RankReader -> Freshness -> Engine -> RankResponse -> predictions topic
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from model_server.backlog import Priority
from model_server.degraded_answer import GraphBound
from model_server.engine import Engine
from model_server.errors import ServerError
from model_server.freshness import Freshness
from model_server.idempotency import Repeats
from model_server.predictions import Predictions
from model_server.quotas import Quotas
from model_server.ranking_answer import list_answer
from model_server.ranking_metrics import RankMetrics
from model_server.ranking_request import AskedList, RankReader
from model_server.ranking_worker import Listed, ListQuestion
from model_server.request import priority_of
from model_server.scoring import error_of
from model_server.tracing import CallTrace, current_call, current_exemplar
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2


class Ranking:
    """Answers requests for lists. Deadlines are time.monotonic instants; errors are ServerError. Of the event loop."""

    def __init__(
        self,
        *,
        reader: RankReader,
        freshness: Freshness,
        engine: Engine[ListQuestion, Listed],
        predictions: Predictions,
        quotas: Quotas,
        metrics: RankMetrics,
        task: str,
        table: str,
        inflight_limit: int,
        bound: GraphBound | None = None,
        repeats: Repeats | None = None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`table` is the users'; `inflight_limit` bounds the lists of one batch that are made at a time."""
        self._reader = reader
        self._freshness = freshness
        self._engine = engine
        self._predictions = predictions
        self._quotas = quotas
        self._metrics = metrics
        self._task = task
        self._table = table
        self._inflight_limit = inflight_limit
        self._clock_us = clock_us
        self._bound = bound
        self._repeats = repeats

    async def rank(
        self, request: service_pb2.RankRequest, deadline_s: float, default: Priority = Priority.INTERACTIVE
    ) -> service_pb2.RankResponse:
        """One list, or the ServerError that says why there is none; `default` is the class of one that names none."""
        if self._repeats is None or not request.request_id:
            return await self._rank(request, deadline_s, default)
        work = partial(self._rank, request, deadline_s, default)
        return await self._repeats.answer(request, service_pb2.RankResponse, deadline_s, work)

    async def _rank(
        self, request: service_pb2.RankRequest, deadline_s: float, default: Priority
    ) -> service_pb2.RankResponse:
        start_s = time.monotonic()
        priority = priority_of(request, default)
        self._quotas.admit(request)
        self._predictions.admit()
        self._engine.admit(deadline_s, priority)  # before it costs anything to read
        asked = self._reader.read(request)
        waited_s = await self._freshness.wait_for(request, deadline_s)
        if waited_s and asked.live:  # now is after the event that was waited for
            asked = self._reader.read(request)
        question = ListQuestion(asked.question, asked.k, asked.rules, deadline_s)
        degraded = None if self._bound is None else self._bound.check()
        listed = await self._engine.ask(question, priority, admitted=not waited_s)
        return self._answer(asked, listed, waited_s, start_s, degraded)

    async def result(
        self, request: service_pb2.RankRequest, deadline_s: float, default: Priority = Priority.INTERACTIVE
    ) -> service_pb2.RankResult:
        """As `rank`, with the error as a value: one item of a batch."""
        try:
            return service_pb2.RankResult(response=await self.rank(request, deadline_s, default))
        except ServerError as error:
            return service_pb2.RankResult(error=error_of(request.request_id, error))

    async def results(
        self, requests: Sequence[service_pb2.RankRequest], deadline_s: float
    ) -> list[service_pb2.RankResult]:
        """Every list or error, in the order of the requests; a few at a time, batched with whatever else waits."""
        places = asyncio.Semaphore(self._inflight_limit)

        async def one(request: service_pb2.RankRequest) -> service_pb2.RankResult:
            async with places:
                return await self.result(request, deadline_s, Priority.BATCH)

        async with asyncio.TaskGroup() as group:  # when the caller goes away, so does all that was begun for it
            tasks = [group.create_task(one(request)) for request in requests]
        return [task.result() for task in tasks]

    def _answer(
        self,
        asked: AskedList,
        listed: Listed,
        waited_s: float,
        start_s: float,
        degraded: service_pb2.Degraded | None,
    ) -> service_pb2.RankResponse:
        total_s = time.monotonic() - start_s
        start_encode_s = time.perf_counter()
        response = list_answer(asked, listed, task=self._task, waited_s=waited_s, total_s=total_s)
        if degraded is not None:
            response.degraded.CopyFrom(degraded)
        encode_s = time.perf_counter() - start_encode_s
        self._metrics.stages["encode"].observe(encode_s)
        if (call := current_call()) is not None:
            trace_list(call, listed, waited_s=waited_s, total_s=total_s, encode_s=encode_s)
        request = asked.request
        user = row_event_pb2.RowEvent(table=self._table, key=request.user, event_time_us=request.event_time_us)
        self._predictions.publish_list(user, request, response)
        self._observe(asked, listed, response, waited_s, total_s)
        return response

    def _observe(
        self, asked: AskedList, listed: Listed, response: service_pb2.RankResponse, waited_s: float, total_s: float
    ) -> None:
        metrics = self._metrics
        if waited_s:
            metrics.stages["freshness"].observe(waited_s)
        metrics.stages["total"].observe(total_s, current_exemplar())
        metrics.list_items.observe(len(response.items))
        metrics.candidates.observe(response.candidate_count)
        if response.fallback:
            metrics.fallbacks.inc()
        shown = Counter(listed.ranked.source[list(listed.order)].tolist())
        for source, child in metrics.shown.items():
            if count := sum(items for flags, items in shown.items() if flags & source):
                child.inc(count)
        if asked.live and asked.request.HasField("freshness_token") and response.HasField("newest_age_us"):
            newest_us = response.cutoff_time_us - response.newest_age_us
            metrics.event_to_rank.observe(max(0, self._clock_us() - newest_us) / 1e6)


def trace_list(call: CallTrace, listed: Listed, *, waited_s: float, total_s: float, encode_s: float) -> None:
    """Writes the spans of a list's stages."""
    stages = listed.stages
    call.item(
        "rank",
        total_s=total_s,
        encode_s=encode_s,
        stages_us=(
            ("freshness", round(waited_s * 1e6)),
            ("queue", stages.queue_us),
            ("retrieve", stages.retrieve_us),
            ("forward", stages.forward_us),
            ("rules", stages.rules_us),
        ),
        attributes={
            "nowgraph.model_version": listed.model_version,
            "nowgraph.candidates": len(listed.ranked),
            "nowgraph.graph_sequence": listed.position.sequence,
        },
    )
