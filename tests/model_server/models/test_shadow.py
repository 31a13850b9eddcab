from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from graph_transformer.predictor import Prediction, Predictor
from model_server.metrics import Metrics
from model_server.models.metrics import ModelMetrics
from model_server.models.shadow import BATCHES_LIMIT, Shadows, Ticket
from online_sampler.neighborhood import Neighborhood
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

Said = list[list[service_pb2.ScoreResponse]]


def _note(numbers: list[int], number: int, _: object) -> None:
    numbers.append(number)


class Slow:
    """A shadow that waits until it is let go, then says what the model says."""

    version = "51000000"

    def __init__(self, predictor: Predictor) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self._predictor = predictor

    def predict(self, neighborhood: Neighborhood) -> Prediction:
        """As the model's."""
        self.begun.set()
        self.go.wait(10)
        return self._predictor.predict(neighborhood)


class Broken:
    """A shadow that fails."""

    version = "b0000000"

    def predict(self, neighborhood: Neighborhood) -> Prediction:
        """Never answers."""
        raise ValueError("4000-1234")


@pytest.fixture
def metrics() -> Metrics:
    """A registry of the test's own."""
    return Metrics().for_task("", "fraud")


def batch(world: Any, predictor: Predictor) -> tuple[Neighborhood, Prediction]:
    """Two payments as the engine's worker would have sampled and scored them."""
    events = [world.event(9_000 + n, world.start_us + 10**10, customer=n) for n in range(2)]
    found = world.sampler.sample_events(events, np.full(2, world.start_us + 10**10 - 1))
    return found, predictor.predict(found)


def shadows_of(world: Any, predictor: Predictor, metrics: Metrics) -> Shadows:
    """The thread of the shadows, not begun."""
    return Shadows(predictor.task.target, ModelMetrics(metrics))


def offered(shadows: Shadows, models: Sequence[Any], found: Neighborhood, live: Prediction) -> Ticket:
    """The ticket of a batch, of shadows that score all of them."""
    ticket = shadows.offer(models, found, live)
    assert ticket is not None
    return ticket


async def said(ticket: Ticket, places: Sequence[int] = (0, 1)) -> Said:
    """What the shadows said of a batch."""
    loop = asyncio.get_running_loop()
    found: list[asyncio.Future[list[service_pb2.ScoreResponse]]] = [loop.create_future() for _ in places]
    for place, future in zip(places, found, strict=True):
        ticket.when_done(place, partial(_tell, future))
    return list(await asyncio.gather(*found))


def _tell(
    future: asyncio.Future[list[service_pb2.ScoreResponse]], answers: Sequence[service_pb2.ScoreResponse]
) -> None:
    future.set_result(list(answers))


async def test_a_shadow_scores_what_was_sampled_for_the_live_model(world: Any, metrics: Metrics) -> None:
    """The same neighborhoods, no second sample: the same model says the same, measured as no difference."""
    predictor = world.predictor(world.graph.view())
    found, live = batch(world, predictor)
    shadows = shadows_of(world, predictor, metrics)
    answers = await said(offered(shadows, [world.predictor(world.graph.view())], found, live))
    assert live.probability is not None
    assert [one.probability for (one,) in answers] == pytest.approx(live.probability.tolist(), abs=1e-6)
    assert {one.model_version for (one,) in answers} == {predictor.version}
    total = metrics.families.registry.total
    assert total("nowgraph_shadow_rows_total", outcome="scored", task="fraud") == 2
    assert total("nowgraph_shadow_difference_count", model_version=predictor.version) == 2
    assert total("nowgraph_shadow_difference_bucket", le="1e-05") == 2
    assert total("nowgraph_shadow_disagreements_total") == 0
    await shadows.close()


async def test_nobody_waits_for_a_slow_shadow(world: Any, metrics: Metrics) -> None:
    """Batches are taken while the shadow stands still; what is too much is skipped, and all are heard of in order."""
    predictor = world.predictor(world.graph.view())
    found, live = batch(world, predictor)
    slow = Slow(predictor)
    shadows = shadows_of(world, predictor, metrics)
    tickets = [offered(shadows, [slow], found, live) for _ in range(BATCHES_LIMIT + 5)]
    order: list[int] = []
    for number, ticket in enumerate(tickets):
        ticket.when_done(0, partial(_note, order, number))
        if not number:  # it is taken before the others wait: one that is taken later would leave its place to the last
            assert await asyncio.to_thread(slow.begun.wait, 10)
    await asyncio.sleep(0.05)
    assert order == []
    slow.go.set()
    last = await said(tickets[-1])
    assert last == [[], []]
    assert order == list(range(len(tickets)))
    assert metrics.families.registry.total("nowgraph_shadow_rows_total", outcome="skipped") >= 2 * 4
    await shadows.close()


async def test_a_batch_runs_behind_its_own_answers(world: Any, metrics: Metrics) -> None:
    """Nothing begins while the event loop still hands out answers, and nothing for callers that all went away."""
    predictor = world.predictor(world.graph.view())
    found, live = batch(world, predictor)
    shadows = shadows_of(world, predictor, metrics)
    before = threading.active_count()
    offered(shadows, [predictor], found, live)
    ticket = offered(shadows, [predictor], found, live)
    ticket.when_done(0, lambda _: None)
    assert threading.active_count() == before
    await said(ticket)
    assert metrics.families.registry.total("nowgraph_shadow_rows_total", outcome="scored") == 2
    await shadows.close()


async def test_a_shadow_that_fails_harms_nobody(world: Any, metrics: Metrics) -> None:
    """The other shadow answers, the failure is counted, and the log has no value of the row."""
    predictor = world.predictor(world.graph.view())
    found, live = batch(world, predictor)
    shadows = shadows_of(world, predictor, metrics)
    answers = await said(offered(shadows, [Broken(), predictor], found, live))
    assert [[one.model_version for one in each] for each in answers] == [[predictor.version]] * 2
    total = metrics.families.registry.total
    assert total("nowgraph_shadow_rows_total", outcome="failed", model_version="b0000000") == 2
    await shadows.close()


async def test_a_closed_shadow_lets_everybody_go(world: Any, metrics: Metrics) -> None:
    """Whoever waits for a batch that was not scored hears that there is nothing, and so does who asks later."""
    predictor = world.predictor(world.graph.view())
    found, live = batch(world, predictor)
    slow = Slow(predictor)
    shadows = shadows_of(world, predictor, metrics)
    tickets = [offered(shadows, [slow], found, live) for _ in range(4)]
    heard: list[int] = []
    for number, ticket in enumerate(tickets):
        ticket.when_done(0, partial(_note, heard, number))
    await asyncio.sleep(0.05)
    slow.go.set()
    await shadows.close()
    assert heard == [0, 1, 2, 3]
    assert await said(offered(shadows, [predictor], found, live)) == [[], []]


async def test_a_share_of_the_batches_is_enough(world: Any, metrics: Metrics) -> None:
    """Where shadows cost too much they score fewer batches, evenly spread; the others have no ticket at all."""
    predictor = world.predictor(world.graph.view())
    found, live = batch(world, predictor)
    shadows = Shadows(predictor.task.target, ModelMetrics(metrics), share=0.25)
    assert [shadows.offer([predictor], found, live) is not None for _ in range(8)] == [False, False, False, True] * 2
