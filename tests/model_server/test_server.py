from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from graph_transformer.target import Kind
from model_server.background import BackgroundServer
from model_server.errors import NotConfiguredError
from model_server.generation import Generations, serving_over
from model_server.server import HEALTH_NAMES, SERVICE_NAME, Server, build_server
from model_server.settings import ServerSettings
from model_server.tenants import TenantParts
from nowgraph.client import Client
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc
from stream.errors import ConfigurationError

pytestmark = pytest.mark.integration
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_is_told_for_the_process_and_the_service(running: BackgroundServer) -> None:
    """Both names are SERVING once the server has warmed up; an unknown name is NOT_FOUND."""
    with grpc.insecure_channel(running.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in HEALTH_NAMES:
            assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_service(running: BackgroundServer) -> None:
    """A tool without our protos can find the service and its methods."""
    with grpc.insecure_channel(running.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE_NAME),
        ]
        services, file = list(stub.ServerReflectionInfo(iter(requests), timeout=5))
    names = {service.name for service in services.list_services_response.service}
    assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names
    assert b"ScoreStream" in file.file_descriptor_response.file_descriptor_proto[0]


def test_a_drain_says_not_serving_and_finishes_what_it_took(
    world: Any, payment: Callable[[], service_pb2.ScoreRequest]
) -> None:
    """Watchers hear NOT_SERVING while a request is in flight; it gets its answer, and new ones are UNAVAILABLE."""
    settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=10_000, drain_notice_s=0.2)
    request = payment()
    request.row.event_time_us = world.start_us + 10**11
    request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="history", offset=100))
    statuses: list[tuple[float, int]] = []
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:

        def watch() -> None:
            try:
                for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
                    statuses.append((time.monotonic(), answer.status))
            except grpc.RpcError:
                pass

        watcher = threading.Thread(target=watch)
        watcher.start()
        stub = service_grpc.PredictionServiceStub(channel)
        in_flight: Future[service_pb2.ScoreResponse] = stub.Score.future(request, timeout=10)
        time.sleep(0.3)
        drain = asyncio.run_coroutine_threadsafe(running.server.drain(), running._loop)
        time.sleep(0.5)
        assert [status for _, status in statuses] == [SERVING, NOT_SERVING]
        assert not in_flight.done()
        with grpc.insecure_channel(running.target) as other, pytest.raises(grpc.RpcError) as caught:
            service_grpc.PredictionServiceStub(other).Score(payment(), timeout=2)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        world.apply([world.event(6_000, world.start_us + 10**10)])
        answer = in_flight.result(timeout=10)
        assert answer.graph_position.partitions[0].next_offset == 101
        drain.result(timeout=10)
        watcher.join(timeout=5)
    assert not watcher.is_alive()


def test_a_drain_does_not_wait_for_idle_streams(world: Any, settings: ServerSettings) -> None:
    """An open stream with nothing in flight ends with UNAVAILABLE, long before the grace period does."""
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:
        stop = threading.Event()

        def requests() -> Any:
            stop.wait(20)
            yield from ()

        call = service_grpc.PredictionServiceStub(channel).ScoreStream(requests())
        time.sleep(0.3)
        start_s = time.monotonic()
        running.close()
        assert time.monotonic() - start_s < settings.drain_grace_s / 2
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        stop.set()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def unreached(world: Any, payment: Callable[[], service_pb2.ScoreRequest]) -> service_pb2.ScoreRequest:
    """A request that waits for an event that nobody publishes."""
    request = payment()
    request.row.event_time_us = world.start_us + 10**11
    request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="history", offset=10**6))
    return request


def test_a_drain_in_a_hurry_waits_for_nobody(world: Any, payment: Callable[[], service_pb2.ScoreRequest]) -> None:
    """Neither for the notice nor for those in flight: calls, batches and streams hear UNAVAILABLE, all counted."""
    settings = ServerSettings(
        port=0, metrics_port=0, deadline_default_ms=60_000, drain_notice_s=60.0, drain_grace_s=60.0
    )
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:
        stub, request = service_grpc.PredictionServiceStub(channel), unreached(world, payment)
        more = threading.Event()

        def requests() -> Any:
            yield service_pb2.ScoreStreamRequest(request=request)
            more.wait(60)

        calls = [
            stub.Score.future(request, timeout=60),
            stub.ScoreBatch.future(service_pb2.ScoreBatchRequest(requests=[request]), timeout=60),
        ]
        stream = stub.ScoreStream(requests(), timeout=60)
        time.sleep(0.5)
        drain = asyncio.run_coroutine_threadsafe(running.server.drain(), running._loop)
        time.sleep(0.2)
        assert not any(call.done() for call in calls)
        running._loop.call_soon_threadsafe(running.server.hurry)
        drain.result(timeout=20)
        assert [call.code() for call in calls] == [grpc.StatusCode.UNAVAILABLE] * 2
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        more.set()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        total = running.server.metrics.families.registry.total
        assert total("nowgraph_requests_total", code="UNAVAILABLE") == len(calls)


def test_interceptors_see_every_call(world: Any, settings: ServerSettings) -> None:
    """What is handed in stands before the service: health checks pass it too."""
    seen: list[str] = []

    class Seen(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
        async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
            seen.append(details.method)
            return await continuation(details)

    def build() -> Server:
        view = world.graph.view()
        generations = Generations(serving_over(view, world.predictor(view)))
        return Server(generations, settings, privacy=world.privacy, predictions_topic="p", interceptors=[Seen()])

    with BackgroundServer(build) as running, grpc.insecure_channel(running.target) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert seen == ["/grpc.health.v1.Health/Check"]


def test_a_drained_server_lets_go_of_the_graph(world: Any, settings: ServerSettings) -> None:
    """Who keeps the object of a stopped server keeps no reader of the graph."""
    before = world.graph.readers()
    running = BackgroundServer(lambda: world.server(settings)).start()
    assert world.graph.readers() > before
    running.close()
    gc.collect()
    assert world.graph.readers() == before
    assert running.server.port > 0


def test_gauges_are_read_again_after_a_failure(
    world: Any, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look that fails is logged; the next ones are made."""
    monkeypatch.setattr("model_server.server.PULSE_S", 0.01)
    looks: list[TenantParts] = []
    again = threading.Event()

    def read(parts: TenantParts) -> None:
        looks.append(parts)
        if len(looks) > 3:
            again.set()
        raise RuntimeError("a defect")

    monkeypatch.setattr(TenantParts, "read_gauges", read)
    with capture_logs() as logged, BackgroundServer(lambda: world.server(settings)):
        assert again.wait(20)
    assert "gauges_failed" in {line["event"] for line in logged}


def test_a_server_that_cannot_start_leaves_nothing_behind(
    world: Any, settings: ServerSettings, running: BackgroundServer
) -> None:
    """Where its port is taken it says so; its workers end, and it keeps no reader of the graph."""
    readers, threads = world.graph.readers(), threading.active_count()
    taken = settings.model_copy(update={"port": running.server.port})
    with pytest.raises(RuntimeError, match="bind"):
        BackgroundServer(lambda: world.server(taken)).start()
    gc.collect()
    assert (world.graph.readers(), threading.active_count()) == (readers, threads)


def test_private_schemas_need_their_secret(world: Any, settings: ServerSettings) -> None:
    """A server that could not hash what it receives refuses to be built."""
    view = world.graph.view()
    with pytest.raises(ConfigurationError, match="private"):
        build_server(view, world.predictor(view), settings=settings)


def test_an_order_of_items_is_no_score(world: Any, settings: ServerSettings) -> None:
    """A ranking task is refused when the server is built, and not when the first request fails."""
    view = world.graph.view()
    predictor = world.predictor(view)
    target = replace(predictor.task.target, kind=Kind.RANKING)
    predictor.task = replace(predictor.task, target=target)
    with pytest.raises(NotConfiguredError, match="ranking"):
        build_server(view, predictor, settings=settings, privacy=world.privacy)


def test_a_server_says_what_kind_of_answers_it_gives(world_of: Callable[[str], Any], settings: ServerSettings) -> None:
    """Its task, and the kind of it, are on the metrics page beside the model's version."""
    with BackgroundServer(lambda: world_of("hours").server(settings)) as running:
        info = next(metric for metric in running.server.metrics.registry.collect() if metric.name == "nowgraph_build")
    assert (info.samples[0].labels["task"], info.samples[0].labels["kind"]) == ("hours", "forecast")


def test_two_servers_over_one_graph_answer_alike(world: Any, settings: ServerSettings) -> None:
    """Any number of servers read the same graph; the same row has the same answer from each."""
    with (
        BackgroundServer(lambda: world.server(settings)) as one,
        BackgroundServer(lambda: world.server(settings)) as two,
        Client(one.target, timeout_s=10) as first,
        Client(two.target, timeout_s=10) as second,
    ):
        cells = {"tx_amount": 3.0, "customer_id": 2, "terminal_id": 2}
        answers = [c.score("transactions", 1, cells, event_time=world.start_us + 10**10) for c in (first, second)]
    assert answers[0].logit == pytest.approx(answers[1].logit, abs=1e-5)
