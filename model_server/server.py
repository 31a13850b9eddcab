"""The process: a gRPC server over graphs and their models, from the first health check to the last answer of a drain.

start:  engine, a first answer to warm up -> SERVING
drain:  NOT_SERVING -> no new requests -> what is in flight finishes -> predictions confirmed -> end; no wait in a hurry
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from graph_transformer.predictor import Predictor
from graph_transformer.ranking.lists import ListRanker
from model_server.accepting import by_name_on, pending_options
from model_server.arrivals import Arrivals
from model_server.calls import task_of
from model_server.degraded import load_policy
from model_server.event_log import EventLog
from model_server.generation import Generations, serving_over
from model_server.idempotency import idempotency_of
from model_server.in_flight import InFlight
from model_server.leaving import leave
from model_server.loop_watch import watch_loop
from model_server.metrics import Metrics
from model_server.metrics_endpoint import HasRegistry, MetricsEndpoint
from model_server.router import Router
from model_server.security.guard import guard_of
from model_server.service import PredictionService
from model_server.settings import ServerSettings
from model_server.tenants import TaskSource, TenantSource, tenant_of
from model_server.time_slice import give_turns, time_slice_us
from model_server.tracing import TracingInterceptor
from model_server.unheard import Unheard
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc
from stream.errors import ConfigurationError
from stream.privacy import Privacy, is_private
from temporal_graph.view import GraphView

log = structlog.get_logger(__name__)

SERVICE_NAME: str = service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
# Every name that a health check may ask for: the process as a whole, and the service.
HEALTH_NAMES = ("", SERVICE_NAME)
# How often the gauges of the graph are read.
PULSE_S = 1.0
# A drain that is hurried is over by then, unless something hangs.
HURRIED_S = 5.0


class Server:
    """Everything that answers requests. `start`, `drain` and `wait` belong to one event loop; a server is used once."""

    def __init__(
        self,
        served: Generations | Sequence[TenantSource],
        settings: ServerSettings,
        *,
        privacy: Privacy | None = None,
        predictions_topic: str = "",
        event_log: EventLog | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
    ) -> None:
        """Serves tenants, or one task of one tenant, whose `privacy` and `predictions_topic` are given.

        Raises NotConfiguredError for a model that cannot answer its task.
        """
        if isinstance(served, Generations):
            policy = None if settings.degraded_path is None else load_policy(settings.degraded_path)
            task = TaskSource(served, policy)
            served = [TenantSource(settings, [task], privacy, predictions_topic)]
        first = served[0].tasks[0].generations.current()
        self.metrics = Metrics()
        if len(served) == 1 and len(served[0].tasks) == 1:
            self.metrics = self.metrics.for_task(settings.tenant, task_of(first).name)
        self.settings = settings
        self.task = task_of(first)
        self.port = 0
        self.metrics_port = 0
        guard = guard_of(settings, self.metrics.registry)
        self._unheard = Unheard(self.metrics)
        self._interceptors = (self._unheard, *interceptors, *guard.interceptors)
        self._credentials = guard.credentials
        self._idempotency = idempotency_of(settings, self.metrics)
        self._in_flight = InFlight()
        self._arrivals = Arrivals(self._in_flight)
        self._tenants = [
            tenant_of(
                source,
                self.metrics,
                event_log=event_log,
                idempotency=self._idempotency,
                unread=self._arrivals.unread,
            )
            for source in served
        ]
        self._router = Router([parts.tenant for parts in self._tenants], self.metrics)
        self.health_names = (*HEALTH_NAMES, *self._router.names)
        self._service = PredictionService(
            router=self._router,
            in_flight=self._in_flight,
            settings=settings,
            metrics=self.metrics,
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # set when the module is imported
        self._background: list[asyncio.Task[None]] = []
        self._grpc: grpc.aio.Server | None = None
        self._endpoint: MetricsEndpoint | None = None
        self._drained = asyncio.Event()
        self._hurried = asyncio.Event()
        self._leaving = False
        self._described = ""
        self._told_serves: list[bool] = []
        self._describe()

    async def start(self) -> None:
        """Binds the ports (`port` and `metrics_port` say which), warms up, and then says SERVING.

        Raises RuntimeError when a port is taken, NotConfiguredError when request ids are to have one answer and Redis
        does not answer; then everything that was begun is ended.
        """
        options = _channel_options(self.settings)
        server = self._unheard.server(lambda: grpc.aio.server(interceptors=self._interceptors, options=options))
        try:
            await self._start(server)
        except BaseException:
            await server.stop(None)
            await self._close()
            raise
        self._grpc = server
        ports = {"port": self.port, "metrics_port": self.metrics_port}
        slice_us = self.settings.time_slice_us if time_slice_us() else 0
        log.info("serving", host=self.settings.host, **ports, time_slice_us=slice_us)

    async def _start(self, server: grpc.aio.Server) -> None:
        settings = self.settings
        if self._idempotency is not None:
            await self._idempotency.start()
        by_name = by_name_on(server)
        service_grpc.add_PredictionServiceServicer_to_server(self._service, by_name_on(server, self._arrivals))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, by_name)
        if settings.reflection:
            reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), by_name)
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        for lanes in self._router.lanes:
            lanes.start()
        if settings.reuse_port:
            # Other processes serve the port meanwhile: no connection may come here before its requests are answered.
            await self._warm_up()
        address = f"{settings.host}:{settings.port}"
        if self._credentials is None:
            self.port = server.add_insecure_port(address)
        else:
            self.port = server.add_secure_port(address, self._credentials)
        self._endpoint = MetricsEndpoint(self.metrics, host=settings.metrics_host, port=settings.metrics_port)
        self.metrics_port = self._endpoint.port
        await server.start()
        if not settings.reuse_port:
            await self._warm_up()
        self._background.append(asyncio.create_task(self._pulse()))
        self._background.append(asyncio.create_task(watch_loop(self.metrics.event_loop_stall)))
        if settings.time_slice_us:
            refuses = partial(self._unheard.refuses, settings.accept_pending_limit)
            self._background.append(asyncio.create_task(give_turns(refuses, settings.time_slice_us)))
        for parts in self._tenants:
            self._background += [asyncio.ensure_future(work()) for work in parts.background]
        await self._tell_health()

    def show(self, metrics: HasRegistry) -> None:
        """Shows metrics of somebody else in this process beside the server's, such as an updater's; once started."""
        if self._endpoint is not None:
            self._endpoint.add(metrics)

    async def wait(self) -> None:
        """Returns when a drain is done."""
        await self._drained.wait()

    async def leave(self) -> None:
        """Leaves the port to the other processes that serve it, without failing a request, and then drains."""
        if self._grpc is None or self._leaving:
            return
        self._leaving = True
        left = await leave(self.port, age_s=self.settings.connection_age_s)
        log.info("left", connections=left)
        await self.drain()

    async def drain(self) -> None:
        """Stops without failing a request that was taken: they have `drain_grace_s` to finish, or until `hurry`."""
        if self._grpc is None:
            return
        server, self._grpc = self._grpc, None
        log.info("draining", in_flight=self._in_flight.count)
        await self._health.enter_graceful_shutdown()
        await self._unless_hurried(asyncio.sleep(self.settings.drain_notice_s))
        self._in_flight.draining.set()
        stopping = asyncio.create_task(server.stop(self.settings.drain_grace_s))
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_grace_s):
                await self._unless_hurried(self._in_flight.idle())
                if self._hurried.is_set():
                    self._in_flight.end()
                # Answers are handed to the transport; health watchers and idle streams have no more to wait for.
                await asyncio.sleep(0.05)
        await server.stop(None)
        await stopping
        await self._close()
        log.info("drained")
        self._drained.set()

    def hurry(self) -> None:
        """Ends a drain at once: who waits for an answer hears UNAVAILABLE, what is unrecorded has a second left."""
        if not self._hurried.is_set():
            log.warning("draining_at_once", in_flight=self._in_flight.count)
            self._hurried.set()

    async def _unless_hurried(self, work: Coroutine[Any, Any, None]) -> None:
        """Waits for the work's end, or until somebody is in a hurry."""
        waits = [asyncio.ensure_future(one) for one in (work, self._hurried.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _close(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._background.clear()
        await asyncio.gather(*(lanes.close() for lanes in self._router.lanes))
        if self._idempotency is not None:
            await self._idempotency.close()
        grace_s = self.settings.drain_grace_s
        await asyncio.gather(*(one.predictions.close(grace_s, hurried=self._hurried) for one in self._tenants))
        if self._endpoint is not None:
            await asyncio.to_thread(self._endpoint.close)
        for lanes in self._router.lanes:
            lanes.release()

    async def _say(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in self.health_names:
            await self._health.set(name, status)

    async def _tell_health(self) -> None:
        """A task serves while its graph does, the process while any of its tasks."""
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        by_task = [parts.serves for parts in self._tenants for _ in parts.tenant.tasks]
        serves = [any(by_task)] * len(HEALTH_NAMES) + by_task
        if serves != self._told_serves:
            self._told_serves = serves
            for name, one in zip(self.health_names, serves, strict=True):
                await self._health.set(name, serving if one else not_serving)

    async def _warm_up(self) -> None:
        await asyncio.gather(*(lanes.warm_up() for lanes in self._router.lanes))

    def _describe(self) -> None:
        """Names what is served; of several tasks each says its own model's version beside."""
        every = self._router.lanes
        version = every[0].version if len(every) == 1 else ""
        if version == self._described and version:
            return
        self._described = version
        self.metrics.describe(
            model_version=version,
            task=self.task.name if version else "",
            kind=self.task.target.kind.value if version else "",
            schema_fingerprint=every[0].generations.current().watch.schema.fingerprint() if version else "",
        )

    async def _pulse(self) -> None:
        while True:
            try:
                for parts in self._tenants:
                    parts.read_gauges()
                self._describe()
                self._unheard.look()
                await self._tell_health()
            except Exception:  # a gauge that stands still for ever would hide what it is there to show
                log.exception("gauges_failed")
            await asyncio.sleep(PULSE_S)


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
        *(
            [("grpc.max_connection_age_ms", round(1e3 * settings.connection_age_s))]
            if settings.connection_age_s
            else []
        ),
        ("grpc.max_receive_message_length", settings.message_bytes_limit),
        ("grpc.max_send_message_length", settings.message_bytes_limit),
        ("grpc.keepalive_time_ms", settings.keepalive_time_ms),
        ("grpc.keepalive_timeout_ms", settings.keepalive_timeout_ms),
        # Of its pings gRPC waits a minute for each, whatever that says; this is the one that closes a dead connection.
        ("grpc.http2.ping_timeout_ms", settings.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client may ping as often as we do; more is abuse and its connection is closed.
        ("grpc.http2.min_ping_interval_without_data_ms", settings.keepalive_time_ms // 2),
        *pending_options(settings.accept_pending_limit),
        # Two servers on one port by accident would share its requests.
        ("grpc.so_reuseport", int(settings.reuse_port)),
    ]
