from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from graph_transformer.target import Kind, Target
from model_server.engine import Engine
from model_server.errors import InvalidRequestError, NotFreshError, OverloadedError
from model_server.freshness import Freshness
from model_server.generation import Generations, Serving
from model_server.metrics import Metrics
from model_server.predictions import Predictions
from model_server.quotas import quotas_of
from model_server.request import RequestReader
from model_server.scorer import Scorer
from model_server.scoring import READ_CHUNK, Scoring, error_of
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

Payment = Callable[[], service_pb2.ScoreRequest]


class Trail:
    """Takes every record, and confirms none: the audit trail of these tests."""

    def __init__(self) -> None:
        self.records: list[service_pb2.Prediction] = []

    def publish(self, topic: str, *, value: bytes, **options: object) -> None:
        """Keeps the record."""
        self.records.append(service_pb2.Prediction.FromString(value))

    def flush(self, timeout_s: float) -> int:
        """Nothing is ever confirmed."""
        return len(self.records)


@pytest.fixture
def trail() -> Trail:
    """The records that were published."""
    return Trail()


@pytest.fixture
async def scoring(
    world: Any, reader: RequestReader, settings: ServerSettings, metrics: Metrics, trail: Trail
) -> AsyncIterator[Scoring]:
    """The whole path without gRPC; the audit trail has room for three answers."""
    view = world.graph.view()
    generations = Generations(Serving.over(view, world.predictor(view)))
    engine = Engine(Scorer(generations.current, metrics), settings, metrics)
    engine.start()
    small = settings.model_copy(update={"predictions_buffer_limit": 3})
    yield Scoring(
        reader=reader,
        freshness=Freshness(lambda: generations.current().watch.position().offsets, poll_s=0.001, reserve_s=0.01),
        engine=engine,
        predictions=Predictions(trail, "predictions", small, metrics),
        quotas=quotas_of(settings, metrics),
        metrics=metrics,
        task="fraud",
        target=Target(Kind.BINARY, "transactions", event_level=True, column="tx_fraud"),
        inflight_limit=settings.score_batch_inflight_limit,
    )
    await engine.close()


def deadline_s(after_s: float = 20.0) -> float:
    """A moment from now."""
    return time.monotonic() + after_s


async def test_every_answer_is_recorded_as_it_was_given(scoring: Scoring, payment: Payment, trail: Trail) -> None:
    """The record holds the answer itself and the row as it was scored, hashed."""
    answer = await scoring.score(payment(), deadline_s())
    (record,) = trail.records
    assert record.response == answer
    assert record.row.key.parts[0].integer == 7
    assert b"4000-1234" not in record.SerializeToString()


async def test_no_answer_is_given_that_cannot_be_recorded(scoring: Scoring, payment: Payment, metrics: Metrics) -> None:
    """With the trail full the next request is refused before the model sees it."""
    for _ in range(3):
        await scoring.score(payment(), deadline_s())
    reached = metrics.registry.get_sample_value("nowgraph_model_rows_total")
    with pytest.raises(OverloadedError):
        await scoring.score(payment(), deadline_s())
    assert metrics.registry.get_sample_value("nowgraph_model_rows_total") == reached == 3


async def test_a_refused_request_is_no_answer(scoring: Scoring, payment: Payment, trail: Trail) -> None:
    """What was invalid or not fresh in time is not recorded."""
    wrong, early = payment(), payment()
    wrong.row.cells[0].text = "x"
    early.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="history", offset=10**6))
    with pytest.raises(InvalidRequestError):
        await scoring.score(wrong, deadline_s())
    with pytest.raises(NotFreshError):
        await scoring.score(early, deadline_s(0.05))
    assert trail.records == []


async def test_items_fail_alone(scoring: Scoring, payment: Payment) -> None:
    """Among many rows an error is one item's value, in its place."""
    wrong = payment()
    wrong.request_id = "wrong"
    wrong.row.cells[0].text = "x"
    first, second, third = await scoring.results([payment(), wrong, payment()], deadline_s())
    assert first.response.probability == pytest.approx(third.response.probability)
    assert second.error == error_of("wrong", InvalidRequestError("row.cells[0].text", second.error.message[19:]))


async def test_a_large_batch_lets_others_have_their_turn(scoring: Scoring, payment: Payment) -> None:
    """While the rows of one big batch are read, the event loop comes round again and again."""
    wrong = payment()
    wrong.row.cells[0].text = "x"  # read and refused: the engine is not what is tested here
    turns = 0
    ended = asyncio.Event()

    async def count() -> None:
        nonlocal turns
        while not ended.is_set():
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    results = await scoring.results([wrong] * 640, deadline_s())
    ended.set()
    await counting
    assert len(results) == 640
    assert turns >= 640 / READ_CHUNK


async def test_an_empty_history_is_counted(scoring: Scoring, payment: Payment, metrics: Metrics) -> None:
    """How many scores rest on the row alone is a number an operator can watch."""
    request = payment()
    del request.row.cells[:]
    await scoring.score(request, deadline_s())
    assert metrics.registry.get_sample_value("nowgraph_empty_history_total") == 1


async def test_an_items_refusal_says_when_to_ask_again(scoring: Scoring, payment: Payment) -> None:
    """Beyond the trail's three answers an item of a batch is shed, with a hint in microseconds."""
    for _ in range(3):
        await scoring.score(payment(), deadline_s())
    results = await scoring.results([payment()] * 6, deadline_s())
    shed = [result.error for result in results if result.HasField("error")]
    assert len(shed) == 6
    assert all(error.code == 8 and error.retry_after_us > 0 for error in shed)


async def test_a_large_batch_takes_the_queue_in_parts(
    scoring: Scoring, payment: Payment, settings: ServerSettings
) -> None:
    """More rows than the queue may hold are all read, in turn: none is refused for the others' sake."""
    bounded = settings.model_copy(update={"predictions_buffer_limit": 10_000})
    scoring._predictions._settings = bounded
    results = await scoring.results([payment()] * 700, deadline_s())
    assert all(result.HasField("response") for result in results)


async def test_a_batch_that_comes_too_late_is_refused_as_a_whole(scoring: Scoring, payment: Payment) -> None:
    """While others run and its deadline cannot be held no row of it is read: one refusal, with a hint."""
    running = asyncio.ensure_future(scoring.results([payment()] * 3, deadline_s()))
    await asyncio.sleep(0)
    scoring._engine._admission.busy_until_s = time.monotonic() + 5.0
    with pytest.raises(OverloadedError) as caught:
        await scoring.results([payment()] * 500, deadline_s(0.5))
    assert caught.value.retry_after_s > 1
    await running
