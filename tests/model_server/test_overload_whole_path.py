"""What callers of an overloaded server are told, over real connections: payments first, the rest with a hint."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from graph_transformer.predictor import Predictor
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

pytestmark = pytest.mark.integration
WAIT_S = 30
QUEUE = 8
PAYMENTS = 4
NIGHTLY = 12
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


class HeldModel:
    """Stands still until it may run; `taken` has the cut-offs of each batch that it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.free.set()
        self.taken: list[list[int]] = []
        predict = Predictor.predict

        def held(predictor: Predictor, neighborhood: Any) -> Any:
            self.taken.append([int(time_us) for time_us in neighborhood.cutoff_time_us])
            assert self.free.wait(WAIT_S)
            return predict(predictor, neighborhood)

        monkeypatch.setattr(Predictor, "predict", held)


def test_payments_are_answered_before_nightly_rows_and_these_hear_when_to_ask_again(
    world: Any,
    payment: Callable[[], service_pb2.ScoreRequest],
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind a model that stands still nightly rows fill the queue; payments take their places and are scored first."""
    model = HeldModel(monkeypatch)
    settings = ServerSettings(
        port=0,
        metrics_port=0,
        batch_limit=PAYMENTS,
        queue_limit=QUEUE,
        queue_batch_limit=QUEUE,
        deadline_default_ms=WAIT_S * 1_000,
    )
    asked, nightly = payment(), payment()
    nightly.row.event_time_us = asked.row.event_time_us + 1
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:
        stub = service_grpc.PredictionServiceStub(channel)

        def shed() -> float:
            return running.server.metrics.registry.total("nowgraph_shed_total", buffer="queue")

        model.taken.clear()  # what warmed it up
        model.free.clear()
        running_one = stub.Score.future(asked, timeout=WAIT_S)
        until(lambda: model.taken)
        batch = stub.ScoreBatch.future(service_pb2.ScoreBatchRequest(requests=[nightly] * NIGHTLY), timeout=WAIT_S)
        until(lambda: shed() == NIGHTLY - QUEUE)
        payments = [stub.Score.future(asked, timeout=WAIT_S) for _ in range(PAYMENTS)]
        until(lambda: shed() == NIGHTLY - QUEUE + PAYMENTS)
        model.free.set()
        answers = [call.result(timeout=WAIT_S) for call in (running_one, *payments)]
        results = batch.result(timeout=WAIT_S).results
    assert all(answer.HasField("graph_position") for answer in answers)
    refused = [result.error for result in results if result.WhichOneof("result") == "error"]
    assert len(results) - len(refused) == QUEUE - PAYMENTS
    assert all(error.code == EXHAUSTED and error.retry_after_us > 0 for error in refused)
    cutoffs = [asked.row.event_time_us - 1, nightly.row.event_time_us - 1]
    assert model.taken == [[cutoffs[0]], [cutoffs[0]] * PAYMENTS, [cutoffs[1]] * (QUEUE - PAYMENTS)]


def test_who_goes_away_or_is_too_late_never_reaches_the_model(
    world: Any,
    payment: Callable[[], service_pb2.ScoreRequest],
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who hangs up, or whose deadline passes, while the model stands still: it never sees their rows."""
    model = HeldModel(monkeypatch)
    settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=WAIT_S * 1_000)

    def asked(after_us: int) -> service_pb2.ScoreRequest:
        request = payment()
        request.row.event_time_us += after_us
        return request

    first, gone, late, last = (asked(after_us) for after_us in range(4))
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:
        stub = service_grpc.PredictionServiceStub(channel)
        total = running.server.metrics.registry.total
        model.taken.clear()  # what warmed it up
        rows = total("nowgraph_model_rows_total")
        model.free.clear()
        calls = [stub.Score.future(first, timeout=WAIT_S)]
        until(lambda: model.taken)
        leaving = [stub.Score.future(gone, timeout=WAIT_S) for _ in range(3)]
        # A deadline that a busy machine can hold; on the same connection, so the others have come by its end.
        short = [stub.Score.future(late, timeout=2) for _ in range(2)]
        assert {call.exception(timeout=WAIT_S).code() for call in short} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        for call in leaving:
            call.cancel()
        # At its deadline a call ends on both sides: whichever hears of it first says how.
        ended = ("CANCELLED", "DEADLINE_EXCEEDED")
        until(lambda: sum(total("nowgraph_requests_total", code=code) for code in ended) == len(leaving + short))
        calls.append(stub.Score.future(last, timeout=WAIT_S))
        model.free.set()
        assert all(call.result(timeout=WAIT_S).HasField("graph_position") for call in calls)
        assert model.taken == [[one.row.event_time_us - 1] for one in (first, last)]
        assert total("nowgraph_model_rows_total") - rows == 2
        assert total("nowgraph_abandoned_total", reason="cancelled") >= len(leaving)
        assert total("nowgraph_abandoned_total") == len(leaving + short)


def test_what_grpc_refuses_for_a_busy_event_loop_is_counted(
    world: Any,
    payment: Callable[[], service_pb2.ScoreRequest],
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its callers hear CANCELLED; the server's metrics have each of them as shed and as unanswered, and no other."""
    monkeypatch.setattr("model_server.server.PULSE_S", 0.05)
    settings = ServerSettings(port=0, metrics_port=0, accept_pending_limit=QUEUE, deadline_default_ms=WAIT_S * 1_000)
    loops: list[asyncio.AbstractEventLoop] = []
    free = threading.Event()

    def build() -> Any:
        loops.append(asyncio.get_running_loop())
        return world.server(settings)

    with BackgroundServer(build) as running, grpc.insecure_channel(running.target) as channel:
        stub = service_grpc.PredictionServiceStub(channel)
        total = running.server.metrics.registry.total
        stub.Score(payment(), timeout=WAIT_S)
        loops[0].call_soon_threadsafe(free.wait, WAIT_S)
        calls = [stub.Score.future(payment(), timeout=WAIT_S) for _ in range(5 * QUEUE)]
        until(lambda: sum(call.done() for call in calls) >= 3 * QUEUE)
        free.set()
        codes = [call.code() for call in calls]
        refused = codes.count(grpc.StatusCode.CANCELLED)
        assert codes.count(grpc.StatusCode.OK) == len(calls) - refused
        until(lambda: total("nowgraph_shed_total", buffer="accept") == refused)
        assert total("nowgraph_requests_total", code="RESOURCE_EXHAUSTED") == refused
        assert total("nowgraph_requests_total", code="OK") == len(calls) - refused + 1
