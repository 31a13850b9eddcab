"""The server as its own process, beside the updaters that write the arena or the store it reads.

settings, serving.yaml ─► schemas, arenas or stores, models ─► Server ─► SIGTERM or SIGINT ─► drain
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
import uvloop
from pydantic import SecretStr

from model_server.config import SECRET_ENV, Place, ServingConfig, TaskConfig, TenantConfig, load_serving
from model_server.degraded import load_policy
from model_server.errors import NotConfiguredError
from model_server.loading import check_device
from model_server.server import HURRIED_S, Server
from model_server.serving import Around, names_of, sources_of
from model_server.settings import ServerSettings
from model_server.store import ServedView, StoreView, wait_for_store
from model_server.tracing import TracingInterceptor
from model_server.worker_link import Ready, SupervisorLink
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.errors import ArenaError
from temporal_graph.schema import Schema
from temporal_graph.view import GraphView

log = structlog.get_logger(__name__)

# Between two looks for a graph that its writer has not published yet.
ATTACH_RETRY_S = 0.2


def serve(
    settings: ServerSettings, stream_settings: StreamSettings | None = None, config: ServingConfig | None = None
) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Without `stream_settings` nothing is published and Ingest is off.

    What is served stands in `config`, else in the file that the settings name, else in the settings' own paths.

    Raises NotConfiguredError for a path that is missing or a device that is not there, ServingConfigError for a file
    that is wrong, and what loading a schema, an arena or a model raises.
    """
    check_device(settings)  # before the wait for a graph
    stream = stream_settings or StreamSettings()
    if config is None:
        config = _one_task(settings) if settings.config is None else load_serving(settings.config)
    took = Took(settings)
    started_s = time.perf_counter()
    around = Around(
        predictions_topic=stream.predictions_topic,
        secret_of=partial(_secret_of, stream),
        wait_for_graph=took.wait_for_graph,
        attach=took.attach,
        publishes=stream_settings is not None,
    )
    with ExitStack() as stack:
        stack.callback(took.close)
        sources = sources_of(config, settings, around)
        took.model_ms = (time.perf_counter() - started_s) * 1e3 - took.wait_ms - took.attach_ms
        tasks = names_of(sources)
        log.info("attached", attach_ms=round(took.attach_ms, 2), model_ms=round(took.model_ms, 1), tasks=tasks)
        producer = None if stream_settings is None else EventProducer(stream_settings)
        if producer is not None:
            stack.callback(producer.close)
        server = Server(sources, settings, event_log=producer, interceptors=(TracingInterceptor(),))
        uvloop.run(_run(server, SupervisorLink.of_environment(), took))


def wait_for_graph(schema: Schema, arena: Path, *, timeout_s: float) -> None:
    """Returns once a generation can be attached; raises ArenaError when none can in time.

    A server may start before its updater: until the graph is there it has nothing to say.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            GraphView.attach(schema, arena).close()
        except ArenaError as error:
            if time.monotonic() >= deadline_s:
                raise
            log.info("waiting_for_graph", reason=str(error))
            time.sleep(ATTACH_RETRY_S)
        else:
            return


@dataclass(slots=True)
class Took:
    """The graphs, and how long it took until they were there, to map the arenas, and to load the models for them.

    A store is connected to once, by whoever waits for it; all of its tenant's tasks read it.
    """

    settings: ServerSettings
    wait_ms: float = 0.0
    attach_ms: float = 0.0
    model_ms: float = 0.0
    stores: dict[tuple[str, str], StoreView] = field(default_factory=dict)

    def wait_for_graph(self, schema: Schema, place: Place) -> None:
        """As `wait_for_graph`, and `wait_for_store`."""
        started_s = time.perf_counter()
        if isinstance(place, Path):
            wait_for_graph(schema, place, timeout_s=self.settings.attach_timeout_s)
        elif (named := _named(schema, place)) not in self.stores:
            self.stores[named] = wait_for_store(place.get_secret_value(), schema, self.settings)
        self.wait_ms += (time.perf_counter() - started_s) * 1e3

    def attach(self, schema: Schema, place: Place) -> ServedView:
        """As `GraphView.attach`; a store is connected to already."""
        if not isinstance(place, Path):
            return self.stores[_named(schema, place)]
        started_s = time.perf_counter()
        view = GraphView.attach(schema, place)
        self.attach_ms += (time.perf_counter() - started_s) * 1e3
        return view

    def close(self) -> None:
        """Closes the stores."""
        for store in self.stores.values():
            store.close()


def _named(schema: Schema, store: SecretStr) -> tuple[str, str]:
    return store.get_secret_value(), schema.fingerprint()


async def _run(server: Server, link: SupervisorLink | None, took: Took) -> None:
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[None]] = []
    started = asyncio.Event()

    async def drain_once_started() -> None:
        await started.wait()
        await server.drain()

    def drain() -> None:
        draining.append(asyncio.create_task(drain_once_started()))

    told = 0

    def stop() -> None:
        nonlocal told
        told += 1
        if told == 1:
            drain()
        elif told == 2:
            server.hurry()
            loop.call_later(HURRIED_S, _end)

    for number in (signal.SIGTERM, signal.SIGINT):  # warming up takes a while, and is not left half done
        loop.add_signal_handler(number, stop)
    await server.start()
    started.set()
    # What was loaded stays: the collector need not look through a model and its libraries again while requests wait.
    gc.collect()
    gc.freeze()
    if link is not None:
        link.watch(drain, lambda: draining.append(asyncio.create_task(server.leave())))
        link.say(Ready(os.getpid(), server.port, server.metrics_port, took.attach_ms, took.model_ms))
    await server.wait()


def _end() -> None:
    log.error("ended_undrained")
    os._exit(1)


def _one_task(settings: ServerSettings) -> ServingConfig:
    """The one task that the settings' paths name."""
    graph = "NOWGRAPH_SERVER_ARENA_PATH or NOWGRAPH_SERVER_STORE_URL"
    schema, checkpoint = settings.schema_path, settings.checkpoint_path
    if settings.arena_path is not None and settings.store_url is not None:
        raise NotConfiguredError(f"{graph}: a graph is in one of the two")
    if schema is None or checkpoint is None or (settings.arena_path or settings.store_url) is None:
        given = {
            "NOWGRAPH_SERVER_SCHEMA_PATH": schema,
            graph: settings.arena_path or settings.store_url,
            "NOWGRAPH_SERVER_CHECKPOINT_PATH": checkpoint,
        }
        missing = ", ".join(name for name, path in given.items() if path is None)
        raise NotConfiguredError(f"the server needs {missing}, or NOWGRAPH_SERVER_CONFIG")
    policy = None if settings.degraded_path is None else load_policy(settings.degraded_path)
    task = TaskConfig(checkpoint=checkpoint, degraded=policy)
    tenant = TenantConfig(
        name=settings.tenant, schema=schema, arena=settings.arena_path, store=settings.store_url, tasks=(task,)
    )
    return ServingConfig(version=1, tenants=(tenant,))


def _secret_of(stream: StreamSettings, name: str) -> bytes | None:
    """The secret in a variable of the environment; the usual one has been read already."""
    if name == SECRET_ENV:
        return stream.secret_bytes()
    found = os.environ.get(name)
    return None if found is None else found.encode()
