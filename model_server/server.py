"""The process: a gRPC server over one graph and one model, from the first health check to the last answer of a drain.

start:  engine, a first answer to warm up -> SERVING
drain:  NOT_SERVING -> no new requests -> what is in flight finishes -> predictions confirmed -> end
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from graph_transformer.predictor import Predictor
from graph_transformer.ranking.lists import ListRanker
from model_server.calls import Parts, calls_of, task_of
from model_server.event_log import EventLog
from model_server.freshness import Freshness
from model_server.generation import Follower, Generations, serving_over
from model_server.ingest import Ingest
from model_server.loop_watch import watch_loop
from model_server.metrics import Metrics
from model_server.metrics_endpoint import MetricsEndpoint
from model_server.predictions import Predictions
from model_server.request import RequestReader
from model_server.security.guard import guard_of
from model_server.service import InFlight, PredictionService
from model_server.settings import ServerSettings
from model_server.tracing import TracingInterceptor
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc
from stream.errors import ConfigurationError
from stream.privacy import Privacy, is_private
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import GraphView

log = structlog.get_logger(__name__)

SERVICE_NAME: str = service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
# Every name that a health check may ask for: the process as a whole, and the service.
HEALTH_NAMES = ("", SERVICE_NAME)
# How often the gauges of the graph are read.
PULSE_S = 1.0


class Server:
    """Everything that answers requests. `start`, `drain` and `wait` belong to one event loop; a server is used once."""

    def __init__(
        self,
        generations: Generations,
        settings: ServerSettings,
        *,
        privacy: Privacy | None,
        predictions_topic: str,
        event_log: EventLog | None = None,
        follower: Follower | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """Answers what is served can be asked; without `credentials` the port speaks as the settings say.

        Raises NotConfiguredError for a model that cannot answer its task.
        """
        serving = generations.current()
        task, schema = task_of(serving), serving.watch.schema
        self.metrics = Metrics().for_task(settings.tenant, task.name)
        self.settings = settings
        self.task = task
        self.port = 0
        self.metrics_port = 0
        self._generations = generations
        self._follower = follower
        guard = guard_of(settings, self.metrics.registry, credentials)
        self._interceptors = (*interceptors, *guard.interceptors)
        self._credentials = guard.credentials
        reader = RequestReader(schema, settings, task=task.name, target=task.target, privacy=privacy)
        self._predictions = Predictions(event_log, predictions_topic, settings, self.metrics)
        freshness = Freshness(
            lambda: generations.current().watch.position().offsets,
            poll_s=settings.freshness_poll_ms / 1e3,
            reserve_s=settings.deadline_reserve_ms / 1e3,
        )
        self._calls = calls_of(
            generations,
            Parts(
                settings=settings,
                metrics=self.metrics,
                reader=reader,
                freshness=freshness,
                predictions=self._predictions,
                privacy=privacy,
            ),
        )
        self._in_flight = InFlight()
        self._service = PredictionService(
            calls=self._calls,
            ingest=Ingest(event_log, reader, schema, settings, self.metrics),
            in_flight=self._in_flight,
            settings=settings,
            metrics=self.metrics,
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # set when the module is imported
        self._background: list[asyncio.Task[None]] = []
        self._grpc: grpc.aio.Server | None = None
        self._endpoint: MetricsEndpoint | None = None
        self._drained = asyncio.Event()
        self.metrics.describe(
            model_version=self._calls.version,
            task=task.name,
            kind=task.target.kind.value,
            schema_fingerprint=schema.fingerprint(),
        )

    async def start(self) -> None:
        """Binds the ports (`port` and `metrics_port` say which), warms up, and then says SERVING.

        Raises RuntimeError when a port is taken.
        """
        settings = self.settings
        server = grpc.aio.server(interceptors=self._interceptors, options=_channel_options(settings))
        service_grpc.add_PredictionServiceServicer_to_server(self._service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if settings.reflection:
            reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        address = f"{settings.host}:{settings.port}"
        if self._credentials is None:
            self.port = server.add_insecure_port(address)
        else:
            self.port = server.add_secure_port(address, self._credentials)
        self._endpoint = MetricsEndpoint(self.metrics, host=settings.metrics_host, port=settings.metrics_port)
        self.metrics_port = self._endpoint.port
        self._calls.start()
        await server.start()
        self._grpc = server
        await self._calls.warm_up()
        self._background.append(asyncio.create_task(self._pulse()))
        self._background.append(asyncio.create_task(watch_loop(self.metrics.event_loop_stall)))
        if self._follower is not None:
            self._background.append(asyncio.create_task(self._follower.run()))
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", host=settings.host, port=self.port, metrics_port=self.metrics_port)

    async def wait(self) -> None:
        """Returns when a drain is done."""
        await self._drained.wait()

    async def drain(self) -> None:
        """Stops without failing a request that was taken: they have `drain_grace_s` to finish."""
        if self._grpc is None:
            return
        server, self._grpc = self._grpc, None
        log.info("draining", in_flight=self._in_flight.count)
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self.settings.drain_notice_s)
        self._in_flight.draining.set()
        stopping = asyncio.create_task(server.stop(self.settings.drain_grace_s))
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_grace_s):
                await self._in_flight.idle()
                # Answers are handed to the transport; health watchers and idle streams have no more to wait for.
                await asyncio.sleep(0.05)
        await server.stop(None)
        await stopping
        await self._calls.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._background.clear()
        await self._predictions.close(self.settings.drain_grace_s)
        if self._endpoint is not None:
            await asyncio.to_thread(self._endpoint.close)
        self._generations.release()
        log.info("drained")
        self._drained.set()

    async def _say(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in HEALTH_NAMES:
            await self._health.set(name, status)

    async def _pulse(self) -> None:
        while True:
            self._read_gauges(self._generations.current().watch)
            await asyncio.sleep(PULSE_S)

    def _read_gauges(self, view: GraphView) -> None:
        position = view.position()
        self.metrics.graph_generation.set(position.generation)
        self.metrics.graph_events.set(position.sequence)
        watermark_us = view.watermark_us
        watermark_s = math.nan if watermark_us == ALWAYS_US else watermark_us / 1e6  # no row has a time yet
        self.metrics.graph_watermark.set(watermark_s)
        self.metrics.graph_staleness.set(max(time.time() - watermark_s, 0.0))


def build_server(
    view: GraphView,
    model: Predictor | ListRanker,
    *,
    settings: ServerSettings | None = None,
    privacy: Privacy | None = None,
    event_log: EventLog | None = None,
    predictions_topic: str = "nowgraph.predictions",
    interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] | None = None,
) -> Server:
    """A server over a graph of this process (`graph.view()`); the view and the model loaded for it are its own now.

    Without `event_log` answers are not recorded and Ingest is refused; without `interceptors` calls are traced by the
    process's OpenTelemetry. Raises ConfigurationError when the schema has
    private values and there is no `privacy` to hash them.
    """
    if privacy is None and any(is_private(table) for table in view.schema.tables):
        raise ConfigurationError("the schema has private values: build the server with privacy_for(schema, secret)")
    return Server(
        Generations(serving_over(view, model)),
        settings if settings is not None else ServerSettings(),
        privacy=privacy,
        predictions_topic=predictions_topic,
        event_log=event_log,
        interceptors=(TracingInterceptor(),) if interceptors is None else interceptors,
    )


def _channel_options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.message_bytes_limit),
        ("grpc.max_send_message_length", settings.message_bytes_limit),
        ("grpc.keepalive_time_ms", settings.keepalive_time_ms),
        ("grpc.keepalive_timeout_ms", settings.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client may ping as often as we do; more is abuse and its connection is closed.
        ("grpc.http2.min_ping_interval_without_data_ms", settings.keepalive_time_ms // 2),
        # Two servers on one port by accident would share its requests.
        ("grpc.so_reuseport", 0),
    ]
