from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from graph_transformer.target import Kind, Target
from model_server.answer import Answer
from model_server.errors import OverloadedError
from model_server.metrics import Metrics
from model_server.models.metrics import ModelMetrics
from model_server.models.shadow import Place, Shadows, Ticket
from model_server.predictions import Predictions
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.batch import Header
from stream.producer import Delivery, OnDelivery

BINARY = Target(Kind.BINARY, "transactions", event_level=True, column="tx_fraud")


class Log:
    """A log in memory that confirms when the test says so, and can refuse."""

    def __init__(self) -> None:
        self.full = False
        self.pending: list[tuple[bytes, OnDelivery]] = []
        self.records: list[bytes] = []

    def publish(
        self,
        topic: str,
        *,
        value: bytes | None,
        key: bytes | None = None,
        on_delivery: OnDelivery | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        """Takes a record, or is full."""
        if self.full:
            raise BufferError
        assert value is not None
        assert on_delivery is not None
        self.pending.append((value, on_delivery))

    def confirm(self, error: str | None = None) -> None:
        """Confirms everything that is pending, or fails it."""
        pending, self.pending = self.pending, []
        for value, on_delivery in pending:
            if error is None:
                self.records.append(value)
            on_delivery(Delivery("predictions", 0, len(self.records) - 1, error))

    def flush(self, timeout_s: float) -> int:
        """Confirms what it has."""
        self.confirm()
        return 0


def predictions(log: Log | None, metrics: Metrics, limit: int = 2) -> Predictions:
    """The publisher under test, with a small buffer."""
    settings = ServerSettings(predictions_buffer_limit=limit, tenant="bank")
    return Predictions(log, "predictions", settings, metrics, clock_us=lambda: 5)


def publish(target: Predictions, request_id: str = "r1") -> None:
    """One answer."""
    row = row_event_pb2.RowEvent(table="transactions")
    target.publish(row, service_pb2.ScoreResponse(request_id=request_id, probability=0.25))


def count(metrics: Metrics, outcome: str) -> float | None:
    """How many answers ended this way."""
    return metrics.registry.get_sample_value("nowgraph_predictions_published_total", {"outcome": outcome})


async def test_an_answer_is_recorded_with_its_row(metrics: Metrics) -> None:
    """The record holds tenant, row, answer and the time it was given, and is confirmed once."""
    log = Log()
    target = predictions(log, metrics)
    publish(target)
    assert target.waiting == 1
    log.confirm()
    assert target.waiting == 0
    record = service_pb2.Prediction.FromString(log.records[0])
    assert record.tenant == "bank"
    assert record.row.table == "transactions"
    assert record.response.request_id == "r1"
    assert record.answered_time_us == 5
    assert count(metrics, "delivered") == 1


async def test_a_list_is_recorded_with_its_positions(metrics: Metrics) -> None:
    """Beside whom it was for stand what was asked and what was shown; it waits in the same trail."""
    log = Log()
    target = predictions(log, metrics)
    response = service_pb2.RankResponse(request_id="r1")
    response.items.add(position=1)
    user = row_event_pb2.RowEvent(table="users")
    target.publish_list(user, service_pb2.RankRequest(k=3), response)
    assert target.waiting == 1
    log.confirm()
    record = service_pb2.Prediction.FromString(log.records[0])
    assert (record.tenant, record.row.table, record.answered_time_us) == ("bank", "users", 5)
    assert not record.HasField("response")
    assert record.ranking.request.k == 3
    assert record.ranking.response == response


async def test_a_full_trail_refuses_new_requests_and_no_answer(metrics: Metrics) -> None:
    """At the limit nothing new is admitted; one below it is, and what was admitted is still recorded."""
    log = Log()
    target = predictions(log, metrics)
    publish(target)
    target.admit()
    publish(target)
    with pytest.raises(OverloadedError):
        target.admit()
    publish(target)
    log.confirm()
    target.admit()
    assert len(log.records) == 3


@pytest.mark.parametrize("outage", ["full", "failed"])
async def test_what_kafka_refuses_is_offered_again(outage: str, metrics: Metrics) -> None:
    """A full producer or a failed delivery keeps the answer; it is recorded once Kafka is back, whoever else asks."""
    log = Log()
    target = predictions(log, metrics)
    log.full = outage == "full"
    publish(target)
    if outage == "failed":
        log.confirm(error="timed out")
    assert target.waiting == 1
    log.full = False
    await asyncio.sleep(0.12)
    log.confirm()
    assert [service_pb2.Prediction.FromString(record).response.request_id for record in log.records] == ["r1"]
    assert metrics.families.registry.total("nowgraph_predictions_waiting") == target.waiting == 0


async def test_closing_records_what_waits(metrics: Metrics) -> None:
    """An answer given just before the end is confirmed before `close` returns."""
    log = Log()
    target = predictions(log, metrics)
    publish(target)
    assert await target.close(timeout_s=1) == 0
    assert len(log.records) == 1


async def test_what_cannot_be_recorded_is_counted_as_lost(metrics: Metrics) -> None:
    """When Kafka stays away until the end, the loss is a number and not a silence."""
    log = Log()
    log.full = True
    target = predictions(log, metrics)
    publish(target)
    assert await target.close(timeout_s=0.05) == 1
    assert count(metrics, "lost") == 1


async def test_an_end_in_a_hurry_does_not_wait_for_kafka(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment it is one, also in the midst of closing; what is lost is counted all the same."""
    monkeypatch.setattr("model_server.predictions.HURRY_S", 0.2)
    log = Log()
    log.full = True
    target = predictions(log, metrics)
    publish(target)
    hurried = asyncio.Event()
    closing = asyncio.create_task(target.close(timeout_s=60, hurried=hurried))
    await asyncio.sleep(0.3)
    assert not closing.done()
    hurried.set()
    assert await asyncio.wait_for(closing, 10) == 1
    assert count(metrics, "lost") == 1


async def test_without_a_log_nothing_waits(metrics: Metrics) -> None:
    """A server without Kafka answers and has no trail to be full."""
    target = predictions(None, metrics)
    publish(target)
    target.admit()
    assert await target.close(timeout_s=0) == 0


async def test_an_answer_waits_for_its_shadows(metrics: Metrics) -> None:
    """Its record counts as waiting at once, goes out with what the shadows said, and keeps the time of the answer."""
    log = Log()
    published = predictions(log, metrics)
    shadows = Shadows(BINARY, ModelMetrics(metrics))
    ticket = Ticket(shadows, None, None, ())
    row = row_event_pb2.RowEvent(table="transactions")
    response = service_pb2.ScoreResponse(task="fraud", model_version="aa", probability=0.5, cutoff_time_us=4)
    published.publish(row, response, Place(ticket, 0))
    assert (published.waiting, log.pending) == (1, [])
    ticket.finish({"bb": [Answer([1.0], [0.75], [])]})
    log.confirm()
    assert published.waiting == 0
    record = service_pb2.Prediction.FromString(log.records[0])
    assert (record.tenant, record.answered_time_us, record.response.probability) == ("bank", 5, 0.5)
    (shadow,) = record.shadows
    assert (shadow.task, shadow.model_version, shadow.probability, shadow.cutoff_time_us) == ("fraud", "bb", 0.75, 4)
    await shadows.close()


async def test_each_tenants_trail_has_its_own_gauge() -> None:
    """What waits for one tenant does not hide what waits for another."""
    server = Metrics()
    for tenant, answers in (("north", 2), ("south", 1)):
        published = predictions(Log(), Metrics(server.families, tenant=tenant), limit=9)
        for _ in range(answers):
            published.publish(row_event_pb2.RowEvent(table="transactions"), service_pb2.ScoreResponse())
    total = server.families.registry.total
    waiting = "nowgraph_predictions_waiting"
    assert (total(waiting, tenant="north"), total(waiting, tenant="south"), total(waiting)) == (2, 1, 3)
