from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from graph_transformer.target import Kind
from model_server.calls import Calls, Parts, RankCalls, ScoreCalls, calls_of, task_of
from model_server.errors import NotConfiguredError
from model_server.generation import Generations, Serving, serving_over
from model_server.metrics import Metrics
from model_server.predictions import Predictions
from model_server.request import RequestReader
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2


def calls_over(world: Any, model: Any, metrics: Metrics) -> Calls:
    """The calls of a server of this model, or of what is served already, without gRPC."""
    serving = model if isinstance(model, Serving) else serving_over(world.graph.view(), model)
    settings, generations = ServerSettings(), Generations(serving)
    task = task_of(generations.current())
    parts = Parts(
        settings=settings,
        metrics=metrics,
        reader=RequestReader(world.schema, settings, task=task.name, target=task.target, privacy=world.privacy),
        predictions=Predictions(None, "predictions", settings, metrics),
        privacy=world.privacy,
    )
    return calls_of(generations, parts)


async def test_what_is_served_decides_what_can_be_asked(world: Any, shop: Any, metrics: Metrics) -> None:
    """A predictor scores and shows neighborhoods, a ranker makes lists; the rest is refused by name."""
    scores = calls_over(world, world.predictor(world.graph.view()), metrics)
    lists = calls_over(shop, shop.ranker(shop.graph.view()), Metrics())
    assert isinstance(scores, ScoreCalls)
    assert isinstance(lists, RankCalls)
    assert (scores.task.name, lists.task.name, lists.version) == ("fraud", "next_click", "counting")
    assert scores.scoring is not None
    assert scores.inspection is not None
    assert lists.ranking is not None
    for calls, name in ((scores, "ranking"), (lists, "scoring"), (lists, "inspection")):
        with pytest.raises(NotConfiguredError, match=calls.task.name):
            getattr(calls, name)
    await asyncio.gather(scores.close(), lists.close())


async def test_warming_up_asks_alone_and_then_in_rising_batches(world: Any, shop: Any, metrics: Metrics) -> None:
    """About nobody, through the same engine as any question: from then on it is known what a batch costs."""
    lists = calls_over(shop, shop.ranker(shop.graph.view()), metrics)
    scores = calls_over(world, world.predictor(world.graph.view()), metrics)
    for calls in (lists, scores):
        calls.start()
        await calls.warm_up()
        await calls.close()
    assert shop.rankers[-1].asked == [1, 4, 8]


def test_a_kind_that_no_score_can_answer_is_refused(world: Any, metrics: Metrics) -> None:
    """When the server is built, and not when the first request fails."""
    predictor = world.predictor(world.graph.view())
    predictor.task = replace(predictor.task, target=replace(predictor.task.target, kind=Kind.RANKING))
    with pytest.raises(NotConfiguredError, match="ranking"):
        calls_over(world, predictor, metrics)


async def test_shadows_of_what_is_served_score_too(
    world: Any, metrics: Metrics, payment: Callable[[], service_pb2.ScoreRequest]
) -> None:
    """An answer is there before its shadows, and closing waits for none of them."""
    serving = serving_over(world.graph.view(), world.predictor(world.graph.view()))
    assert isinstance(serving, Serving)
    shadow = world.predictor(world.graph.view())
    calls = calls_over(world, replace(serving, shadows=(shadow, shadow)), metrics)
    calls.start()
    request = payment()
    request.row.event_time_us = world.start_us + 10**10
    answer = await calls.scoring.score(request, time.monotonic() + 20)
    assert answer.model_version == shadow.version
    total = metrics.families.registry.total
    for _ in range(500):
        if total("nowgraph_shadow_rows_total", outcome="scored") == 2:
            break
        await asyncio.sleep(0.01)
    assert total("nowgraph_shadow_rows_total", outcome="scored", model_version=shadow.version) == 2
    await calls.close()
