"""What a server can be asked, by the kind of its task: scores of rows and entities, or lists of items.

    Serving ─► ScoreCalls: Score, ScoreBatch, ScoreStream, Neighborhood
    RankServing ─► RankCalls: Rank, RankBatch

What the other kind of server answers is refused, with the name of the task that is served here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, cast

from graph_transformer.task import Task
from model_server.answer import KINDS
from model_server.degraded import DegradedPolicy, check_policy
from model_server.degraded_answer import GraphBound, RuleAnswers, Staleness
from model_server.engine import Engine
from model_server.errors import NotConfiguredError
from model_server.freshness import Freshness
from model_server.generation import Generations, RankServing, Served, Serving
from model_server.idempotency import Idempotency, Repeats
from model_server.inspection import Inspection
from model_server.metrics import Metrics
from model_server.models.metrics import ModelMetrics
from model_server.models.shadow import Shadows
from model_server.predictions import Predictions
from model_server.quotas import Quotas, quotas_of
from model_server.ranking import Ranking
from model_server.ranking_metrics import RankMetrics
from model_server.ranking_request import RankReader
from model_server.ranking_worker import Listed, ListQuestion, RankWorker
from model_server.request import RequestReader
from model_server.scorer import Question, Scored, Scorer
from model_server.scoring import Scoring
from model_server.seeds import unknown_key
from model_server.settings import ServerSettings
from model_server.store import ServedView, StoreView
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.privacy import Privacy

# How long the first answer may take, compilers and page faults included.
WARM_UP_S = 60.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What both kinds of calls are built from; `reader` reads requests about rows, and events.

    `quotas` and `staleness` are shared by all tasks of a tenant, and `models` by all models of a task; each is built
    where it is not given.
    `unread` says how many calls have come of which nothing is known yet.
    `policy` is the task's degraded one; `idempotency` is the process's, where request ids have one answer.
    """

    settings: ServerSettings
    metrics: Metrics
    reader: RequestReader
    predictions: Predictions
    privacy: Privacy | None
    quotas: Quotas | None = None
    models: ModelMetrics | None = None
    policy: DegradedPolicy | None = None
    idempotency: Idempotency | None = None
    staleness: Staleness = field(default_factory=Staleness)
    unread: Callable[[], int] = lambda: 0


class Calls:
    """The calls of a server. This one refuses all of them; each kind of server has its own."""

    def __init__(self, task: Task, version: str) -> None:
        self.task = task
        self.version = version

    @property
    def scoring(self) -> Scoring:
        """Scores; raises NotConfiguredError where there are none."""
        self._refuse("Score")

    @property
    def inspection(self) -> Inspection:
        """Neighborhoods; raises NotConfiguredError where there are none."""
        self._refuse("Neighborhood")

    @property
    def ranking(self) -> Ranking:
        """Lists; raises NotConfiguredError where there are none."""
        self._refuse("Rank")

    def start(self) -> None:
        """Starts the worker; belongs to the event loop."""

    async def warm_up(self) -> None:
        """One answer about nobody: the first forward pass pays for loading, not the first caller."""

    async def close(self) -> None:
        """Answers what waits and ends the worker."""

    def _refuse(self, call: str) -> NoReturn:
        task = f"task {self.task.name!r} of this server is a {self.task.target.kind.value}"
        raise NotConfiguredError(f"{task}: {call} cannot answer it")


class ScoreCalls(Calls):
    """Calls about rows and entities. Raises NotConfiguredError for a task that a score cannot answer."""

    def __init__(self, serving: Callable[[], Serving], parts: Parts) -> None:
        predictor = serving().predictor
        super().__init__(predictor.task, predictor.version)
        target = self.task.target
        if target.kind not in KINDS:
            raise NotConfiguredError(f"task {self.task.name!r} is a {target.kind.value}: a score cannot answer it")
        settings, metrics = parts.settings, parts.metrics
        self._table = serving().view.schema.table(self.task.table)
        self._reader = parts.reader
        self._shadows = Shadows(target, parts.models or ModelMetrics(metrics), share=settings.shadow_share)
        scorer = Scorer(serving, metrics, self._shadows)
        freshness = freshness_of(lambda: serving().watch, settings)
        self._engine: Engine[Question, Scored] = Engine(scorer, settings, metrics, unread=parts.unread)
        self._scoring = Scoring(
            reader=parts.reader,
            freshness=freshness,
            engine=self._engine,
            predictions=parts.predictions,
            quotas=parts.quotas or quotas_of(settings, metrics),
            metrics=metrics,
            task=self.task.name,
            target=target,
            inflight_limit=settings.score_batch_inflight_limit,
            bound=bound_of(parts, lambda: serving().watch),
            rules=self._rules(parts),
            repeats=repeats_of(parts, self.task.name, "Score"),
        )
        self._inspection = Inspection(serving, parts.reader, freshness, settings, metrics)

    def _rules(self, parts: Parts) -> RuleAnswers | None:
        target, policy = self.task.target, parts.policy
        if policy is None or not policy.rules:
            return None
        return RuleAnswers(policy, parts.reader, parts.predictions, parts.metrics, task=self.task.name, target=target)

    @property
    def scoring(self) -> Scoring:
        """Scores."""
        return self._scoring

    @property
    def inspection(self) -> Inspection:
        """Neighborhoods."""
        return self._inspection

    def start(self) -> None:
        """As `Calls.start`."""
        self._engine.start()

    async def warm_up(self) -> None:
        """As `Calls.warm_up`."""
        row = row_event_pb2.RowEvent(table=self._table.name, key=unknown_key(self._table))
        asked = self._reader.read(service_pb2.ScoreRequest(row=row))
        deadline_s = time.monotonic() + WARM_UP_S
        await self._engine.warm_up(Question(asked.event, asked.cutoff_time_us, deadline_s, asked.key))

    async def close(self) -> None:
        """As `Calls.close`."""
        await self._engine.close()
        await self._shadows.close()
        self._inspection.close()


class RankCalls(Calls):
    """Calls about lists."""

    def __init__(self, serving: Callable[[], RankServing], parts: Parts) -> None:
        ranker, schema = serving().ranker, serving().watch.schema
        super().__init__(ranker.task, ranker.version)
        settings, metrics = parts.settings, RankMetrics(parts.metrics)
        self._table = schema.table(self.task.table)
        self._reader = RankReader(schema, settings, task=self.task, privacy=parts.privacy)
        self._engine: Engine[ListQuestion, Listed] = Engine(
            RankWorker(serving, metrics),
            settings,
            parts.metrics,
            batch_limit=settings.rank_batch_limit,
            unread=parts.unread,
        )
        self._ranking = Ranking(
            reader=self._reader,
            freshness=freshness_of(lambda: serving().watch, settings),
            engine=self._engine,
            predictions=parts.predictions,
            quotas=parts.quotas or quotas_of(settings, parts.metrics),
            metrics=metrics,
            task=self.task.name,
            table=self.task.table,
            inflight_limit=settings.rank_batch_inflight_limit,
            bound=bound_of(parts, lambda: serving().watch),
            repeats=repeats_of(parts, self.task.name, "Rank"),
        )

    @property
    def ranking(self) -> Ranking:
        """Lists."""
        return self._ranking

    def start(self) -> None:
        """As `Calls.start`."""
        self._engine.start()

    async def warm_up(self) -> None:
        """As `Calls.warm_up`: it takes in the graph's rows, which no caller should wait for."""
        asked = self._reader.read(service_pb2.RankRequest(user=unknown_key(self._table)))
        deadline_s = time.monotonic() + WARM_UP_S
        await self._engine.warm_up(ListQuestion(asked.question, asked.k, asked.rules, deadline_s))

    async def close(self) -> None:
        """As `Calls.close`."""
        await self._engine.close()


def freshness_of(view: Callable[[], ServedView], settings: ServerSettings) -> Freshness:
    """Waits for the graph that these calls answer on: a canary's may be another generation than the live model's."""

    def offsets() -> Mapping[tuple[str, int], int]:
        seen = view()
        return seen.offsets() if isinstance(seen, StoreView) else seen.position().offsets

    return Freshness(
        offsets,
        poll_s=settings.freshness_poll_ms / 1e3,
        reserve_s=settings.deadline_reserve_ms / 1e3,
    )


def bound_of(parts: Parts, view: Callable[[], ServedView]) -> GraphBound | None:
    """How stale the task's graph may be; None where its policy does not say."""
    policy = parts.policy
    return (
        None
        if policy is None or policy.stale_graph is None
        else GraphBound(policy, view, parts.metrics, parts.staleness)
    )


def repeats_of(parts: Parts, task: str, method: str) -> Repeats | None:
    """What gives a request id of this method its one answer."""
    if parts.idempotency is None:
        return None
    return Repeats(parts.idempotency, parts.settings.tenant, task, method)


def calls_of(generations: Generations, parts: Parts) -> Calls:
    """The calls that what is served can answer; every later generation is of the first one's kind.

    Raises NotConfiguredError for a degraded policy that does not fit the task.
    """
    if parts.policy is not None:
        serving = generations.current()
        interval_s = parts.settings.lag_interval_s
        check_policy(parts.policy, task_of(serving).target, serving.watch.schema, lag_interval_s=interval_s)
    if isinstance(generations.current(), RankServing):
        return RankCalls(cast("Callable[[], RankServing]", generations.current), parts)
    return ScoreCalls(cast("Callable[[], Serving]", generations.current), parts)


def task_of(serving: Served) -> Task:
    """The task that is served."""
    return serving.ranker.task if isinstance(serving, RankServing) else serving.predictor.task
