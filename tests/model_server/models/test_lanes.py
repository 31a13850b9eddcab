from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from model_server.calls import Parts
from model_server.errors import NotFreshError
from model_server.generation import Generations, serving_over
from model_server.metrics import Metrics
from model_server.models.lanes import Lanes, share_of
from model_server.predictions import Predictions
from model_server.request import RequestReader
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph


@pytest.fixture
def metrics() -> Metrics:
    """A registry of the test's own."""
    return Metrics().for_task("", "fraud")


def lanes_of(world: Any, metrics: Metrics) -> Lanes:
    """The lanes of the world's model, without gRPC."""
    view, settings = world.graph.view(), ServerSettings(deadline_default_ms=20_000)
    predictor = world.predictor(view)
    target = predictor.task.target
    parts = Parts(
        settings=settings,
        metrics=metrics,
        reader=RequestReader(world.schema, settings, task="fraud", target=target, privacy=world.privacy),
        predictions=Predictions(None, "predictions", settings, metrics),
        privacy=world.privacy,
    )
    return Lanes(Generations(serving_over(view, predictor)), parts)


def canary_of(world: Any, version: str = "cccccccc") -> Any:
    """What serves the same model under another version."""
    view = world.graph.view()
    predictor = world.predictor(view)
    predictor.version = version
    return serving_over(view, predictor)


def asked(world: Any, number: int) -> service_pb2.ScoreRequest:
    """A question about a payment."""
    request = service_pb2.ScoreRequest()
    request.row.table = "transactions"
    request.row.key.parts.add(integer=number)
    request.row.event_time_us = world.start_us + 10**10
    request.row.cells.add(column="customer_id", integer=1)
    return request


def test_keys_spread_evenly_and_stay_where_they_are() -> None:
    """A tenth of the keys is below a tenth; which ones is the same everywhere, and other tasks take others."""
    keys = [row_event_pb2.Key(parts=[row_event_pb2.KeyPart(integer=n)]).SerializeToString() for n in range(20_000)]
    shares = [share_of(b"fraud", key) for key in keys]
    assert sum(share < 0.1 for share in shares) == pytest.approx(2_000, abs=200)
    assert all(0.0 <= share < 1.0 for share in shares)
    assert share_of(b"fraud", keys[17]) == 0.852608297868787
    both = sum(share < 0.1 and share_of(b"churn", key) < 0.1 for share, key in zip(shares, keys, strict=True))
    assert both == pytest.approx(200, abs=70)


async def test_a_canary_answers_its_share_and_gives_it_back(world: Any, metrics: Metrics) -> None:
    """Each key has one model; a larger share takes no key back, and without a canary all are the live model's."""
    lanes = lanes_of(world, metrics)
    lanes.start()
    await lanes.warm_up()
    await lanes.begin_canary(canary_of(world), 0.3)
    deadline_s = time.monotonic() + 60

    async def versions() -> dict[int, str]:
        found = {}
        for number in range(60):
            request = asked(world, number)
            found[number] = (await lanes.for_row(request).scoring.score(request, deadline_s)).model_version
        return found

    first = await versions()
    assert Counter(first.values())["cccccccc"] == pytest.approx(18, abs=12)
    assert await versions() == first
    lanes.set_share(0.6)
    second = await versions()
    assert {n for n, v in first.items() if v == "cccccccc"} < {n for n, v in second.items() if v == "cccccccc"}
    await lanes.begin_canary(canary_of(world, "dddddddd"), 0.6)
    assert set((await versions()).values()) == {lanes.version, "dddddddd"}
    lanes.end_canary()
    assert set((await versions()).values()) == {lanes.version}
    total = metrics.families.registry.total
    assert total("nowgraph_canary_share", task="fraud") == 0
    assert total("nowgraph_model_rows_total", task="fraud/canary") > 0
    await lanes.close()


async def test_each_model_waits_for_the_graph_that_it_reads(world: Any, metrics: Metrics) -> None:
    """While live model and canary stand on two generations, a freshness token is of the one that answers."""
    with TemporalGraph.create(world.schema, arena_bytes=64 << 20) as ahead:
        ahead.apply([world.event(1, world.start_us)], backfill=True, positions={("payments", 0): 1})
        lanes = lanes_of(world, metrics)
        lanes.start()
        view = ahead.view()
        await lanes.begin_canary(serving_over(view, world.predictor(view)), 0.5)
        assert lanes.canary is not None
        request = asked(world, 1)
        request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="payments"))
        answer = await lanes.canary.calls.scoring.score(request, time.monotonic() + 60)
        assert answer.graph_position.partitions[0].topic == "payments"
        with pytest.raises(NotFreshError):
            await lanes.live.scoring.score(request, time.monotonic() + 0.1)
        await lanes.close()
        lanes.release()


async def test_a_closed_task_lets_go_of_the_graph(world: Any, metrics: Metrics) -> None:
    """Live model and canary: their readers of the graph are gone with them."""
    import gc

    before = world.graph.readers()
    lanes = lanes_of(world, metrics)
    lanes.start()
    await lanes.begin_canary(canary_of(world), 0.5)
    assert world.graph.readers() > before
    await lanes.close()
    lanes.release()
    del lanes
    gc.collect()
    assert world.graph.readers() == before


async def test_lists_go_by_their_user(shop: Any, metrics: Metrics) -> None:
    """A user has one ranker, and lists of nobody are the live model's."""
    view, settings = shop.graph.view(), ServerSettings(deadline_default_ms=20_000)
    ranker = shop.ranker(view)
    parts = Parts(
        settings=settings,
        metrics=metrics,
        reader=RequestReader(shop.schema, settings, task="n", target=ranker.task.target, privacy=shop.privacy),
        predictions=Predictions(None, "predictions", settings, metrics),
        privacy=shop.privacy,
    )
    lanes = Lanes(Generations(serving_over(view, ranker)), parts)
    lanes.start()
    await lanes.begin_canary(serving_over(shop.graph.view(), shop.ranker(shop.graph.view())), 0.5)
    users = [service_pb2.RankRequest() for _ in range(40)]
    for number, request in enumerate(users):
        request.user.parts.add(integer=number)
    canaries = sum(lanes.for_user(request) is not lanes.live for request in users)
    assert 5 < canaries < 35
    assert lanes.for_user(service_pb2.RankRequest()) is lanes.live
    await lanes.close()
