from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from model_server.errors import NotConfiguredError, OverloadedError, PredictionFailedError, UnknownTaskError
from model_server.generation import Generations, serving_over
from model_server.metrics import Metrics
from model_server.router import Router
from model_server.settings import ServerSettings
from model_server.tenants import TaskSource, TenantSource, tenant_of
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2

SETTINGS = ServerSettings(port=0, metrics_port=0, deadline_default_ms=20_000)
NOT_FOUND, INTERNAL = 5, 13


def source(name: str, *worlds: Any, rows_per_s: float = 0.0) -> TenantSource:
    """A tenant of the first world's graph, with every world's task on it."""
    first = worlds[0]
    tasks = []
    for world in worlds:
        view = first.graph.view()
        model = world.ranker(view) if hasattr(world, "ranker") else world.predictor(view)
        tasks.append(TaskSource(Generations(serving_over(view, model))))
    settings = SETTINGS.model_copy(update={"tenant": name})
    return TenantSource(settings, tasks, first.privacy, "predictions", rows_per_s)


@pytest.fixture
def metrics() -> Metrics:
    """A registry of the test's own."""
    return Metrics()


@pytest.fixture
async def router_of(metrics: Metrics) -> AsyncIterator[Callable[..., Router]]:
    """Gives a started router over tenants."""
    routers = []

    def build(*sources: TenantSource) -> Router:
        parts = [tenant_of(one, metrics, event_log=None, idempotency=None) for one in sources]
        router = Router([one.tenant for one in parts], metrics)
        for lanes in router.lanes:
            lanes.start()
        routers.append(router)
        return router

    yield build
    for router in routers:
        for lanes in router.lanes:
            await lanes.close()


def payment(world: Any, number: int = 1, *, task: str = "", tenant: str = "") -> service_pb2.ScoreRequest:
    """A question about a payment."""
    request = service_pb2.ScoreRequest(request_id=str(number), task=task, tenant=tenant)
    request.row.table = "transactions"
    request.row.key.parts.add(integer=number)
    request.row.event_time_us = world.start_us + 10**10
    request.row.cells.add(column="customer_id", integer=1)
    return request


def customer(number: int, *, task: str = "") -> service_pb2.ScoreRequest:
    """A question about a customer."""
    request = service_pb2.ScoreRequest(request_id=str(number), task=task)
    request.row.table = "customers"
    request.row.key.parts.add(integer=number)
    return request


def soon() -> float:
    """A deadline that a loaded machine can hold."""
    return time.monotonic() + 30


async def test_tasks_of_one_graph_are_told_apart_by_name(
    router_of: Callable[..., Router], world: Any, world_of: Callable[[str], Any], metrics: Metrics
) -> None:
    """Two tasks of scores: each answers by its name, and no name is not enough."""
    router = router_of(source("", world, world_of("spend")))
    fraud = await router.scoring.score(payment(world, task="fraud"), soon())
    spend = await router.scoring.score(customer(3, task="spend"), soon())
    assert (fraud.task, spend.task) == ("fraud", "spend")
    assert spend.HasField("value")
    with pytest.raises(UnknownTaskError, match=r"task: one of 'fraud', 'spend' expected, found none"):
        await router.scoring.score(payment(world), soon())
    with pytest.raises(UnknownTaskError, match="found 'churn'"):
        await router.scoring.score(payment(world, task="churn"), soon())
    assert metrics.families.registry.total("nowgraph_model_rows_total", task="fraud") == 1
    assert router.metrics_of(customer(1, task="spend")).task_labels == ("", "spend")
    assert router.metrics_of(customer(1, task="churn")) is metrics


async def test_scores_and_lists_of_one_server(router_of: Callable[..., Router], world: Any, shop: Any) -> None:
    """A tenant that scores and one that ranks: an empty task is the only one that the call can answer."""
    router = router_of(source("bank", world), source("shop", shop))
    assert (await router.scoring.score(payment(world, tenant="bank"), soon())).task == "fraud"
    listed = await router.ranking.rank(service_pb2.RankRequest(tenant="shop", k=2), soon())
    assert listed.task == "next_click"
    with pytest.raises(NotConfiguredError, match="next_click"):
        await router.scoring.score(payment(world, tenant="shop"), soon())
    with pytest.raises(UnknownTaskError, match=r"tenant: one of 'bank', 'shop' expected, found none"):
        await router.ranking.rank(service_pb2.RankRequest(), soon())


async def test_a_batch_may_ask_several_tasks(
    router_of: Callable[..., Router], world: Any, world_of: Callable[[str], Any]
) -> None:
    """Answers stand in the order of the requests, with the errors of those that nobody answers between them."""
    router = router_of(source("", world, world_of("spend")))
    requests = [
        payment(world, 1, task="fraud"),
        customer(2, task="spend"),
        payment(world, 3, task="churn"),
        payment(world, 4, task="fraud"),
    ]
    results = await router.scoring.results(requests, soon())
    assert [one.response.task for one in results] == ["fraud", "spend", "", "fraud"]
    assert [one.response.request_id for one in results] == ["1", "2", "", "4"]
    assert (results[2].error.code, results[2].error.field, results[2].error.request_id) == (NOT_FOUND, "task", "3")


async def test_a_tenant_has_its_own_quota(router_of: Callable[..., Router], world: Any, shop: Any) -> None:
    """What one tenant asks too much is refused with a hint; the other one's answers come."""
    router = router_of(source("bank", world, rows_per_s=2.0), source("shop", shop))
    for number in range(2):
        await router.scoring.score(payment(world, number, tenant="bank"), soon())
    with pytest.raises(OverloadedError, match="tenant's quota") as caught:
        await router.scoring.score(payment(world, 9, tenant="bank"), soon())
    assert caught.value.retry_after_s is not None
    await router.ranking.rank(service_pb2.RankRequest(tenant="shop"), soon())


async def test_a_canary_that_fails_costs_nobody_an_answer(
    router_of: Callable[..., Router], world: Any, metrics: Metrics
) -> None:
    """One by one and in batches the live model answers in its place, is named in the answer, and it is counted."""
    router = router_of(source("", world))
    (lanes,) = router.lanes
    view = world.graph.view()
    broken = world.predictor(view)
    broken.version = "b0000000"
    await lanes.begin_canary(serving_over(view, broken), 0.9999)

    def fail(_: object) -> None:
        raise ValueError

    broken.predict = fail
    answer = await router.scoring.score(payment(world), soon())
    assert answer.model_version == lanes.version
    results = await router.scoring.results([payment(world, number) for number in range(6)], soon())
    assert {one.response.model_version for one in results} == {lanes.version}
    assert metrics.families.registry.total("nowgraph_canary_failures_total", task="fraud") == 7
    assert lanes.canary is not None
    assert (lanes.canary.asked, lanes.canary.failed) == (7, 7)
    canary = lanes.for_row(payment(world))
    with pytest.raises(PredictionFailedError):
        await canary.scoring.score(payment(world), soon())


async def test_a_caller_pays_once_for_an_answer_that_the_live_model_gives_in_a_canarys_place(
    router_of: Callable[..., Router], world: Any
) -> None:
    """Asked one by one or in a batch; what is beyond the quota stays refused, whichever model is asked for it."""
    quota = {"quota_rows_per_s": 0.001, "quota_burst_s": 6_000.0}
    one = source("", world)
    router = router_of(replace(one, settings=one.settings.model_copy(update=quota)))
    (lanes,) = router.lanes
    view = world.graph.view()
    broken = world.predictor(view)

    def fail(_: object) -> None:
        raise ValueError

    await lanes.begin_canary(serving_over(view, broken), 0.9999)
    broken.predict = fail
    for number in range(2):
        await router.scoring.score(payment(world, number), soon())
    results = await router.scoring.results([payment(world, number) for number in range(6)], soon())
    assert [one.WhichOneof("result") for one in results] == ["response"] * 4 + ["error"] * 2
    assert "quota" in results[-1].error.message
    with pytest.raises(OverloadedError, match="quota"):
        await router.scoring.score(payment(world), soon())


async def test_a_canary_that_answers_is_counted_however_it_is_asked(
    router_of: Callable[..., Router], world: Any
) -> None:
    """Its rule counts answers to single requests as those of batches and streams."""
    router = router_of(source("", world))
    (lanes,) = router.lanes
    view = world.graph.view()
    await lanes.begin_canary(serving_over(view, world.predictor(view)), 0.9999)
    await router.scoring.score(payment(world), soon())
    await router.scoring.result(payment(world, 2), soon())
    await router.scoring.results([payment(world, number) for number in range(4)], soon())
    assert lanes.canary is not None
    assert (lanes.canary.asked, lanes.canary.failed) == (6, 0)


async def test_what_the_live_model_refuses_too_is_no_failure_of_the_canary(
    router_of: Callable[..., Router], world: Any, metrics: Metrics
) -> None:
    """A caller whose quota is used up is refused by both: one by one, and as a part of a batch."""
    whole = source("", world)
    settings = whole.settings.model_copy(update={"quota_rows_per_s": 1e-6})
    router = router_of(replace(whole, settings=settings))
    (lanes,) = router.lanes
    view = world.graph.view()
    await lanes.begin_canary(serving_over(view, world.predictor(view)), 0.9999)
    await router.scoring.score(payment(world), soon())
    with pytest.raises(OverloadedError, match="caller's quota"):
        await router.scoring.score(payment(world, 2), soon())
    results = await router.scoring.results([payment(world, number) for number in range(4)], soon())
    assert all("caller's quota" in one.error.message for one in results)
    assert lanes.canary is not None
    assert (lanes.canary.asked, lanes.canary.failed) == (1, 0)
    assert metrics.families.registry.total("nowgraph_canary_failures_total") == 0


async def test_a_batch_that_the_canary_refuses_as_a_whole_is_the_live_models(
    router_of: Callable[..., Router], world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A canary without room does not even look at the rows; each of them is answered."""
    router = router_of(source("", world))
    (lanes,) = router.lanes
    view = world.graph.view()
    await lanes.begin_canary(serving_over(view, world.predictor(view)), 0.9999)
    canary = lanes.for_row(payment(world))

    def full(*_: object) -> None:
        raise OverloadedError("full")

    monkeypatch.setattr(canary.scoring, "results", full)
    results = await router.scoring.results([payment(world, number) for number in range(4)], soon())
    assert {one.response.model_version for one in results} == {lanes.version}
    assert lanes.canary is not None
    assert lanes.canary.failed == 4


async def test_two_models_share_the_keys_of_a_batch(router_of: Callable[..., Router], world: Any) -> None:
    """Each row's answer names the model that its key belongs to, alone as in a batch."""
    router = router_of(source("", world))
    (lanes,) = router.lanes
    view = world.graph.view()
    other = world.predictor(view)
    other.version = "cccccccc"
    await lanes.begin_canary(serving_over(view, other), 0.5)
    requests = [payment(world, number) for number in range(30)]
    together = [one.response.model_version for one in await router.scoring.results(requests, soon())]
    alone = [(await router.scoring.score(request, soon())).model_version for request in requests]
    assert together == alone
    assert set(together) == {"cccccccc", lanes.version}


async def test_events_go_to_their_tenant(router_of: Callable[..., Router], world: Any, shop: Any) -> None:
    """A table belongs to a tenant's schema; without Kafka the right one says so, and a wrong one is unknown."""
    router = router_of(source("bank", world), source("shop", shop))
    event = row_event_pb2.RowEvent(table="clicks")
    with pytest.raises(NotConfiguredError, match="without Kafka"):
        await router.ingest(service_pb2.IngestRequest(tenant="bank", event=event), soon())
    with pytest.raises(UnknownTaskError, match="tenant"):
        await router.ingest(service_pb2.IngestRequest(event=event), soon())


def test_a_task_stands_there_once(world: Any, metrics: Metrics) -> None:
    """Two models of one task are a live one and a canary, and not two tasks."""
    twice = source("", world, world)
    with pytest.raises(NotConfiguredError, match="'fraud' twice"):
        tenant_of(replace(twice), metrics, event_log=None, idempotency=None)
