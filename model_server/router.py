"""Finds whose calls answer a request: by tenant and task, and of several models by the share of its key.

    request ─► tenant ─► its quota ─► task ─► Lanes: live or canary ─► scoring, inspection, ranking
                                                ^--------- fails, is full, goes away ---------'

A name that is empty stands for the only one that there is: the only tenant, and the only task that the call can answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from graph_transformer.target import Kind
from model_server.backlog import Priority
from model_server.calls import Calls
from model_server.errors import (
    DrainingError,
    OverloadedError,
    PredictionFailedError,
    ServerError,
    UnknownTaskError,
    code_of,
    number_of,
)
from model_server.ingest import Ingest
from model_server.metrics import Metrics
from model_server.models.lanes import Lanes
from model_server.quotas import Quotas, charged_once
from model_server.scoring import error_of
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

# A canary's errors that are its own: the live model answers in its place.
CANARY_ERRORS = (PredictionFailedError, OverloadedError, DrainingError)
_CANARY_CODES = frozenset(number_of(code_of(kind(""))) for kind in CANARY_ERRORS)

Asked = service_pb2.ScoreRequest | service_pb2.RankRequest
AnyRequest = (
    Asked
    | service_pb2.ScoreBatchRequest
    | service_pb2.RankBatchRequest
    | service_pb2.NeighborhoodRequest
    | service_pb2.IngestRequest
)
RequestT = TypeVar("RequestT", bound=Asked)
ResponseT = TypeVar("ResponseT", service_pb2.ScoreResponse, service_pb2.RankResponse)
ResultT = TypeVar("ResultT", service_pb2.ScoreResult, service_pb2.RankResult)


@dataclass(frozen=True, slots=True)
class Tenant:
    """One graph: its tasks by name, where its events go, and its metrics; `quota` is of all its callers together."""

    name: str
    tasks: Mapping[str, Lanes]
    ingest: Ingest
    metrics: Metrics
    quota: Quotas | None = None

    def task(self, name: str, *, lists: bool) -> Lanes:
        """The task of a name; of an empty one the only task of that kind. Raises UnknownTaskError."""
        if name in self.tasks:
            return self.tasks[name]
        if len(self.tasks) == 1:
            return next(iter(self.tasks.values()))  # its reader says what is wrong with the name
        if not name:
            fitting = [one for one in self.tasks.values() if (one.task.target.kind is Kind.RANKING) is lists]
            if len(fitting) == 1:
                return fitting[0]
        raise _unknown("task", name, self.tasks)

    def admit(self) -> None:
        """Takes a row of the tenant's quota. Raises OverloadedError with when there is one again."""
        if self.quota is None:
            return
        wait_s = self.quota.take(self.name)
        if wait_s > 0:
            self.metrics.shed.labels("quota").inc()
            raise OverloadedError("the tenant's quota is used up", retry_after_s=wait_s)


class Router:
    """What the service asks. Belongs to the event loop."""

    def __init__(self, tenants: Sequence[Tenant], metrics: Metrics) -> None:
        """`metrics` count what is of no tenant."""
        self.tenants: Mapping[str, Tenant] = {tenant.name: tenant for tenant in tenants}
        self._metrics = metrics
        self._only = tenants[0] if len(tenants) == 1 else None
        ranks = {lanes.task.target.kind is Kind.RANKING for lanes in self.lanes}
        self._has_scores, self._has_lists = False in ranks, True in ranks
        self._scoring = RoutedScoring(self)
        self._inspection = RoutedInspection(self)
        self._ranking = RoutedRanking(self)

    @property
    def lanes(self) -> list[Lanes]:
        """Every task of every tenant."""
        return [lanes for tenant in self.tenants.values() for lanes in tenant.tasks.values()]

    @property
    def names(self) -> list[str]:
        """Every task as health checks name it: `tenant/task`, or the task alone where the tenant has no name."""
        return [f"{t.name}/{task}" if t.name else task for t in self.tenants.values() for task in t.tasks]

    @property
    def scoring(self) -> RoutedScoring:
        """Scores; raises NotConfiguredError where no task has them."""
        if not self._has_scores:
            _ = self.lanes[0].live.scoring
        return self._scoring

    @property
    def inspection(self) -> RoutedInspection:
        """Neighborhoods; raises NotConfiguredError where no task has them."""
        if not self._has_scores:
            _ = self.lanes[0].live.inspection
        return self._inspection

    @property
    def ranking(self) -> RoutedRanking:
        """Lists; raises NotConfiguredError where no task has them."""
        if not self._has_lists:
            _ = self.lanes[0].live.ranking
        return self._ranking

    def tenant(self, name: str) -> Tenant:
        """The tenant of a name. Raises UnknownTaskError."""
        if self._only is not None:
            return self._only  # its reader says what is wrong with the name
        found = self.tenants.get(name)
        if found is None:
            known = ", ".join(map(repr, self.tenants))
            raise UnknownTaskError(
                "tenant", f"one of {known} expected, " + (f"found {name!r}" if name else "found none")
            )
        return found

    def find(self, request: Asked) -> tuple[Tenant, Lanes]:
        """Whose request it is. Raises UnknownTaskError."""
        tenant = self.tenant(request.tenant)
        return tenant, tenant.task(request.task, lists=isinstance(request, service_pb2.RankRequest))

    def metrics_of(self, request: AnyRequest) -> Metrics:
        """Where a call is counted: at its task, of a batch at the first one's, else at the server."""
        try:
            match request:
                case service_pb2.ScoreBatchRequest() | service_pb2.RankBatchRequest():
                    return self.metrics_of(request.requests[0]) if request.requests else self._metrics
                case service_pb2.NeighborhoodRequest():
                    return self.metrics_of(request.request)
                case service_pb2.IngestRequest():
                    return self.tenant(request.tenant).metrics
                case _:
                    return self.find(request)[1].metrics
        except UnknownTaskError:
            return self._metrics

    async def ingest(self, request: service_pb2.IngestRequest, deadline_s: float) -> service_pb2.IngestResponse:
        """As `Ingest.ingest`, of the request's tenant."""
        return await self.tenant(request.tenant).ingest.ingest(request, deadline_s)


class _Routed(Generic[RequestT, ResultT]):
    """Batches whose items belong to several tasks or models: each part as it is, put together in their order."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def _lane(self, lanes: Lanes, request: RequestT) -> Calls:
        raise NotImplementedError

    def _results_of(self, calls: Calls) -> Callable[[Sequence[RequestT], float], Awaitable[list[ResultT]]]:
        raise NotImplementedError

    def _error(self, request: RequestT, error: ServerError) -> ResultT:
        raise NotImplementedError

    async def results(self, requests: Sequence[RequestT], deadline_s: float) -> list[ResultT]:
        """Every item's answer or error, in order."""
        found: dict[int, ResultT] = {}
        parts: dict[Calls, tuple[Lanes, list[int]]] = {}
        for number, request in enumerate(requests):
            try:
                tenant, lanes = self._router.find(request)
                tenant.admit()
                calls = self._lane(lanes, request)
                parts.setdefault(calls, (lanes, []))[1].append(number)
            except ServerError as error:
                found[number] = self._error(request, error)
        if len(parts) == 1 and not found:
            (calls,) = parts
            return await self._part(calls, parts[calls][0], requests, deadline_s)
        async with asyncio.TaskGroup() as group:
            tasks = [
                (places, group.create_task(self._part(calls, lanes, [requests[n] for n in places], deadline_s)))
                for calls, (lanes, places) in parts.items()
            ]
        for places, task in tasks:
            found.update(zip(places, task.result(), strict=True))
        return [found[number] for number in range(len(requests))]

    async def _one(self, request: RequestT, answer: Callable[[Calls], Awaitable[ResponseT]]) -> ResponseT:
        tenant, lanes = self._router.find(request)
        tenant.admit()
        calls = self._lane(lanes, request)
        if calls is lanes.live:
            return await answer(calls)
        with charged_once():
            try:
                response = await answer(calls)
            except CANARY_ERRORS:
                response = await answer(lanes.live)  # if that fails too, it was not the canary's fault
                lanes.canary_asked(1, failed=1)
                return response
        lanes.canary_asked(1)
        return response

    async def _part(self, calls: Calls, lanes: Lanes, requests: Sequence[RequestT], deadline_s: float) -> list[ResultT]:
        if calls is lanes.live:
            return await self._asked(calls, requests, deadline_s)
        held = list(requests)
        with charged_once():
            results = await self._asked(calls, held, deadline_s)
            again = [number for number, result in enumerate(results) if _error_code(result) in _CANARY_CODES]
            answers = await self._asked(lanes.live, [held[number] for number in again], deadline_s) if again else []
        for number, answer in zip(again, answers, strict=True):
            results[number] = answer
        failed = sum(_error_code(answer) is None for answer in answers)
        lanes.canary_asked(sum(_error_code(result) is None for result in results), failed=failed)
        return results

    async def _asked(self, calls: Calls, requests: Sequence[RequestT], deadline_s: float) -> list[ResultT]:
        try:
            return await self._results_of(calls)(requests, deadline_s)
        except ServerError as error:  # a kind of call that the task cannot answer, or a batch refused as a whole
            return [self._error(request, error) for request in requests]


class RoutedScoring(_Routed[service_pb2.ScoreRequest, service_pb2.ScoreResult]):
    """As `Scoring`, over every task."""

    async def score(
        self,
        request: service_pb2.ScoreRequest,
        deadline_s: float,
        default: Priority = Priority.INTERACTIVE,
        *,
        remembered: bool = True,
    ) -> service_pb2.ScoreResponse:
        """As `Scoring.score`."""
        return await self._one(
            request, lambda calls: calls.scoring.score(request, deadline_s, default, remembered=remembered)
        )

    async def result(
        self, request: service_pb2.ScoreRequest, deadline_s: float, default: Priority = Priority.INTERACTIVE
    ) -> service_pb2.ScoreResult:
        """As `Scoring.result`."""
        try:
            return service_pb2.ScoreResult(response=await self.score(request, deadline_s, default, remembered=False))
        except ServerError as error:
            return self._error(request, error)

    def _lane(self, lanes: Lanes, request: service_pb2.ScoreRequest) -> Calls:
        return lanes.for_row(request)

    def _results_of(
        self, calls: Calls
    ) -> Callable[[Sequence[service_pb2.ScoreRequest], float], Awaitable[list[service_pb2.ScoreResult]]]:
        return calls.scoring.results

    def _error(self, request: service_pb2.ScoreRequest, error: ServerError) -> service_pb2.ScoreResult:
        return service_pb2.ScoreResult(error=error_of(request.request_id, error))


class RoutedRanking(_Routed[service_pb2.RankRequest, service_pb2.RankResult]):
    """As `Ranking`, over every task."""

    async def rank(
        self, request: service_pb2.RankRequest, deadline_s: float, default: Priority = Priority.INTERACTIVE
    ) -> service_pb2.RankResponse:
        """As `Ranking.rank`."""
        return await self._one(request, lambda calls: calls.ranking.rank(request, deadline_s, default))

    def _lane(self, lanes: Lanes, request: service_pb2.RankRequest) -> Calls:
        return lanes.for_user(request)

    def _results_of(
        self, calls: Calls
    ) -> Callable[[Sequence[service_pb2.RankRequest], float], Awaitable[list[service_pb2.RankResult]]]:
        return calls.ranking.results

    def _error(self, request: service_pb2.RankRequest, error: ServerError) -> service_pb2.RankResult:
        return service_pb2.RankResult(error=error_of(request.request_id, error))


class RoutedInspection:
    """As `Inspection`, over every task; of several models it shows what the live one sees."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def neighborhood(
        self, request: service_pb2.NeighborhoodRequest, deadline_s: float
    ) -> service_pb2.NeighborhoodResponse:
        """As `Inspection.neighborhood`."""
        _, lanes = self._router.find(request.request)
        return await lanes.live.inspection.neighborhood(request, deadline_s)


def _unknown(field: str, name: str, known: Iterable[str]) -> UnknownTaskError:
    found = f"found {name!r}" if name else "found none"
    return UnknownTaskError(field, f"one of {', '.join(map(repr, known))} expected, {found}")


def _error_code(result: service_pb2.ScoreResult | service_pb2.RankResult) -> int | None:
    """The code of an item's error; None of one that was answered."""
    return result.error.code if result.WhichOneof("result") == "error" else None
