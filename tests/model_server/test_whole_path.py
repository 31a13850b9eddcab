"""Kafka to score, through every part: embedded broker, updater, graph, server, client, predictions topic."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from model_server.settings import ServerSettings
from nowgraph.client import InvalidRequestError, Row, Score
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from stream.batch import Batch
from stream.kafka_source import KafkaSource
from stream.settings import EVENTS_TOPIC, StreamSettings

pytestmark = pytest.mark.integration
SECOND_US = 1_000_000
INPUTS = {"transactions": 1, "transaction_events": 2, EVENTS_TOPIC: 1}


def after(world: Any) -> int:
    """A time after everything in the world's graph."""
    return int(world.start_us + 10**11)


@pytest.fixture
def system(world: Any, settings: ServerSettings, live: Callable[..., Any]) -> Any:
    """The world that looks for fraud, running."""
    return live(world, INPUTS, settings)


def read_predictions(stream: StreamSettings, count: int) -> list[service_pb2.Prediction]:
    """What the predictions topic holds, once it holds this many."""
    source = KafkaSource(["nowgraph.predictions"], settings=stream)
    records: list[service_pb2.Prediction] = []
    until_s = time.monotonic() + 20
    while len(records) < count and time.monotonic() < until_s:
        batch: Batch = source.poll(1000, 0.2)
        records += [service_pb2.Prediction.FromString(value or b"") for value in batch.values]
    source.close()
    return records


def test_the_payment_just_ingested_is_in_the_next_neighborhood(system: Any) -> None:
    """The whole promise: with the token of an event the very next question sees it, private link and all, ten times."""
    client, time_us = system.client, after(system.world)
    customer, card = 424_242, "4999-0000-1111"
    for number in range(10):
        cells = {"tx_amount": 10.0 + number, "customer_id": customer, "terminal_id": 3, "card_number": card}
        event_us = time_us + number * SECOND_US
        token = client.ingest("transactions", 50_000 + number, cells, event_time=event_us)
        assert token.topic == "transaction_events"
        score = client.score(
            "transactions", 60_000, {"customer_id": customer}, event_time=event_us + 1, freshness_token=token
        )
        assert score.history_count == min(number + 1, 8)  # the plan takes the eight newest
        assert score.newest_neighbor_age_us == 0
        assert score.graph_position.offsets[token.topic, token.partition] > token.offset
        seen = client.neighborhood(
            "transactions", 60_000, {"customer_id": customer}, event_time=event_us + 1, freshness_token=token
        )
        newest = next(row for row in seen.neighbors if row.key == 50_000 + number)
        assert newest.cells["tx_amount"] == 10.0 + number
        assert newest.parent == next(i for i, row in enumerate(seen.neighbors) if row.table == "customers")


def test_every_answer_is_on_the_predictions_topic(system: Any) -> None:
    """Single, batch and stream: each answer once, with its row and position; errors are not there."""
    row = Row("transactions", 70_000, {"customer_id": 5, "card_number": "4999-0000-1111"}, after(system.world))
    wrong = Row("transactions", 70_000, {"tx_amount": "much"}, after(system.world))
    answers: list[Any] = [
        system.client.score("transactions", 70_001, {"customer_id": 5}, event_time=after(system.world))
    ]
    answers += system.client.score_batch([row, wrong, row])
    answers += system.client.score_stream([row] * 20)
    scores = [answer for answer in answers if isinstance(answer, Score)]
    assert len(scores) == 23
    with pytest.raises(InvalidRequestError):
        system.client.score("transactions", "70001")
    records = read_predictions(system.stream, len(scores))
    assert sorted(record.response.logit for record in records) == sorted(score.logit for score in scores)
    for record in records:
        assert record.row.table == "transactions"
        assert record.row.event_time_us == after(system.world)
        assert record.response.graph_position.sequence >= 100
        assert record.answered_time_us > after(system.world)
        assert b"4999-0000-1111" not in record.SerializeToString()


def test_a_label_that_becomes_known_is_in_the_next_answer(
    world_of: Callable[[str], Any], settings: ServerSettings, live: Callable[..., Any]
) -> None:
    """An entity's past label comes by Kafka like any row: seen from its known time on, and not one microsecond before.

    The whole answer, a number with its quantiles, is on the predictions topic with the entity it is about.
    """
    system = live(world_of("spend"), INPUTS, settings)
    client, anchor_us, customer = system.client, after(system.world), 424_242
    known_us = anchor_us + 30 * 60 * SECOND_US
    cells = {"label": 12.5, "customer_id": customer}
    token = client.ingest("spend", (customer, anchor_us), cells, event_time=anchor_us, known_time=known_us)
    scores = [
        client.score("customers", customer, event_time=time_us, freshness_token=token)
        for time_us in (known_us - 1, known_us)
    ]
    assert [score.history_count for score in scores] == [0, 1]
    records = sorted(read_predictions(system.stream, 2), key=lambda record: record.response.cutoff_time_us)
    for score, record in zip(scores, records, strict=True):
        assert record.row.table == "customers"
        assert record.row.key.parts[0].text == system.world.privacy.hash(customer)
        assert record.response.value == score.value
        assert [part.value for part in record.response.quantiles] == list(score.quantiles.values())


def test_answers_are_recorded_before_the_server_ends(system: Any) -> None:
    """A drain confirms the last answers: none is lost with the process."""
    rows = [Row("transactions", number, {"customer_id": 5}, after(system.world)) for number in range(200)]
    assert len(system.client.score_batch(rows)) == 200
    system.server.close()
    assert len(read_predictions(system.stream, 200)) == 200
    lost = system.server.server.metrics.registry.get_sample_value(
        "nowgraph_predictions_published_total", {"outcome": "lost"}
    )
    assert lost == 0


def test_a_recorded_answer_is_computed_again_at_its_position(system: Any) -> None:
    """The record's row and cut-off give the same logit on the same graph: the audit trail can be replayed."""
    system.client.score("transactions", 80_000, {"customer_id": 5, "tx_amount": 4.0}, event_time=after(system.world))
    (record,) = read_predictions(system.stream, 1)
    view = system.world.graph.view()
    predictor = system.world.predictor(view)
    found = Sampler(view, predictor.plan).sample_events(
        [record.row.SerializeToString()], np.array([record.response.cutoff_time_us])
    )
    assert predictor.predict(found).logit[0] == pytest.approx(record.response.logit, abs=1e-5)


def test_scores_and_ingest_from_many_threads(system: Any) -> None:
    """Four threads that ingest and then ask with their token each see their own payments, whoever else writes."""

    def work(customer: int) -> int:
        seen = 0
        for number in range(15):
            event_us = after(system.world) + number * SECOND_US
            token = system.client.ingest(
                "transactions", customer * 1_000 + number, {"customer_id": customer}, event_time=event_us
            )
            asked = system.client.score(
                "transactions", 1, {"customer_id": customer}, event_time=event_us + 1, freshness_token=token
            )
            seen += asked.history_count == min(number + 1, 8)
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, [900_001, 900_002, 900_003, 900_004])) == [15] * 4
