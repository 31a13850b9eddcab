from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import structlog

from model_server.engine import Engine
from model_server.errors import DeadlinePassedError, DrainingError, OverloadedError, PredictionFailedError
from model_server.generation import Generations, Serving
from model_server.metrics import Metrics
from model_server.scorer import Question, Scored, Scorer
from model_server.settings import ServerSettings

Running = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture
def generations(world: Any) -> Generations:
    """What is served: the world's graph and model."""
    view = world.graph.view()
    return Generations(Serving.over(view, world.predictor(view)))


@pytest.fixture
def running(generations: Generations, metrics: Metrics) -> Running:
    """Runs an engine with given limits."""

    @asynccontextmanager
    async def run(**limits: int) -> AsyncIterator[Engine]:
        engine = Engine(Scorer(generations.current, metrics), ServerSettings(**limits), metrics)
        engine.start()
        try:
            yield engine
        finally:
            await engine.close()

    return run


def question(world: Any, number: int = 500, *, after_s: float = 10.0, customer: int = 1) -> Question:
    """A payment an hour after the last one in the graph."""
    time_us = world.start_us + 100 * 60_000_000 + 3_600_000_000
    event = world.event(number, time_us, customer=customer)
    return Question(event, time_us - 1, time.monotonic() + after_s)


def model_rows(metrics: Metrics) -> float:
    """How many rows reached the model."""
    return metrics.registry.get_sample_value("nowgraph_model_rows_total") or 0.0


async def test_an_idle_engine_answers_at_once(world: Any, running: Running, metrics: Metrics) -> None:
    """One question is a batch of one, and says from what and when it was answered."""
    async with running() as engine:
        scored = await engine.submit(question(world))
    assert 0.0 < scored.answer.probability[0] < 1.0
    assert scored.history.history_count > 0
    assert scored.position.sequence == 100
    assert scored.stages.sample_us > 0
    assert model_rows(metrics) == 1


async def test_what_waits_is_scored_together(world: Any, running: Running, metrics: Metrics) -> None:
    """Questions that come while a batch runs share the next one, up to the limit, with the same answers as alone."""
    async with running(batch_limit=16) as engine:
        alone = [await engine.submit(question(world, 500 + n, customer=n)) for n in range(40)]
        batches = metrics.registry.get_sample_value("nowgraph_batch_rows_count") or 0
        together = await asyncio.gather(*(engine.submit(question(world, 500 + n, customer=n)) for n in range(40)))
    formed = (metrics.registry.get_sample_value("nowgraph_batch_rows_count") or 0) - batches
    assert 3 <= formed < 40
    assert metrics.registry.get_sample_value("nowgraph_batch_rows_bucket", {"le": "16.0"}) == batches + formed
    assert [one.answer.output[0] for one in together] == pytest.approx(
        [one.answer.output[0] for one in alone], abs=1e-5
    )


async def test_an_expired_question_never_reaches_the_model(world: Any, running: Running, metrics: Metrics) -> None:
    """A deadline that passes in the queue costs a counter and no forward pass; the next question is answered."""
    async with running() as engine:
        late = engine.submit(question(world, after_s=-0.001))
        with pytest.raises(DeadlinePassedError):
            await late
        assert model_rows(metrics) == 0
        await engine.submit(question(world))
    assert model_rows(metrics) == 1
    assert metrics.registry.get_sample_value("nowgraph_abandoned_total", {"reason": "expired"}) == 1


async def test_a_cancelled_question_never_reaches_the_model(world: Any, running: Running, metrics: Metrics) -> None:
    """When the caller goes away before its batch begins, no work is done for it."""
    async with running() as engine:
        gone = engine.submit(question(world))
        gone.cancel()
        stays = engine.submit(question(world))
        await stays
    reached = model_rows(metrics)
    cancelled = metrics.registry.get_sample_value("nowgraph_abandoned_total", {"reason": "cancelled"}) or 0
    assert reached + cancelled == 2  # the worker may have taken the first one before it was cancelled
    assert reached >= 1


async def test_a_full_queue_refuses_at_once(world: Any, running: Running, metrics: Metrics) -> None:
    """Beyond the queue's limit a question is refused without waiting, and what was taken is still answered."""
    taken: list[asyncio.Future[Scored]] = []
    refused = 0
    async with running(queue_limit=4, batch_limit=1) as engine:
        for number in range(200):
            try:
                taken.append(engine.submit(question(world, 500 + number)))
            except OverloadedError:
                refused += 1
        assert len(await asyncio.gather(*taken)) == len(taken)
    assert refused == 200 - len(taken) > 100
    assert metrics.registry.get_sample_value("nowgraph_shed_total", {"buffer": "queue"}) == refused


async def test_one_bad_row_fails_alone(world: Any, running: Running) -> None:
    """A row that the sampler refuses gets its own error; the rest of its batch is answered, and nothing is quoted."""
    bad = Question(b"4000-1234 is no event", 0, time.monotonic() + 10)
    with structlog.testing.capture_logs() as logs:
        async with running() as engine:
            results = await asyncio.gather(
                *(engine.submit(one) for one in (question(world), bad, question(world))), return_exceptions=True
            )
    assert [type(result) for result in results] == [Scored, PredictionFailedError, Scored]
    assert "4000-1234" not in str(results[1]) + str(logs)
    assert any(entry["event"] == "prediction_failed" for entry in logs)


async def test_closing_answers_what_waits(world: Any, running: Running) -> None:
    """Questions in the queue are answered before `close` returns; later ones are told that the server stops."""
    async with running() as engine:
        waiting = [engine.submit(question(world, 500 + number)) for number in range(10)]
        await engine.close()
        assert all(isinstance(one.result(), Scored) for one in waiting)
        with pytest.raises(DrainingError):
            engine.submit(question(world))


async def test_the_next_batch_uses_what_replaced(world: Any, running: Running, generations: Generations) -> None:
    """After a replacement answers come from the new view and its model, without a restart."""
    async with running() as engine:
        before = await engine.submit(question(world))
        world.apply([world.event(101, world.start_us + 101 * 60_000_000)])
        view = world.graph.view()
        generations.replace(Serving.over(view, world.predictor(view)))
        after = await engine.submit(question(world))
    assert after.position.sequence == before.position.sequence + 1
    assert after.history.history_count == before.history.history_count + 1
