"""The server as its own process, beside the updater that writes the arena it reads.

settings, serving.yaml ─► schemas, arenas, models ─► Server ─► SIGTERM or SIGINT ─► drain
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import uvloop

from model_server.config import SECRET_ENV, ServingConfig, TaskConfig, TenantConfig, load_serving
from model_server.degraded import load_policy
from model_server.errors import NotConfiguredError
from model_server.server import Server
from model_server.serving import Around, names_of, sources_of
from model_server.settings import ServerSettings
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

    Raises NotConfiguredError when a path is missing, ServingConfigError for a file that is wrong, and what loading a
    schema, an arena or a model raises.
    """
    stream = stream_settings or StreamSettings()
    if config is None:
        config = _one_task(settings) if settings.config is None else load_serving(settings.config)
    took = Took()
    started_s = time.perf_counter()
    around = Around(
        predictions_topic=stream.predictions_topic,
        secret_of=partial(_secret_of, stream),
        wait_for_graph=partial(took.wait_for_graph, timeout_s=settings.attach_timeout_s),
        attach=took.attach,
        publishes=stream_settings is not None,
    )
    sources = sources_of(config, settings, around)
    took.model_ms = (time.perf_counter() - started_s) * 1e3 - took.wait_ms - took.attach_ms
    log.info("attached", attach_ms=round(took.attach_ms, 2), model_ms=round(took.model_ms, 1), tasks=names_of(sources))
    producer = None if stream_settings is None else EventProducer(stream_settings)
    try:
        server = Server(sources, settings, event_log=producer, interceptors=(TracingInterceptor(),))
        uvloop.run(_run(server, SupervisorLink.of_environment(), took))
    finally:
        if producer is not None:
            producer.close()


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
    """How long it took until there was a graph, to map the arenas, and to load the models for them."""

    wait_ms: float = 0.0
    attach_ms: float = 0.0
    model_ms: float = 0.0

    def wait_for_graph(self, schema: Schema, arena: Path, *, timeout_s: float) -> None:
        """As `wait_for_graph`."""
        started_s = time.perf_counter()
        wait_for_graph(schema, arena, timeout_s=timeout_s)
        self.wait_ms += (time.perf_counter() - started_s) * 1e3

    def attach(self, schema: Schema, arena: Path) -> GraphView:
        """As `GraphView.attach`."""
        started_s = time.perf_counter()
        view = GraphView.attach(schema, arena)
        self.attach_ms += (time.perf_counter() - started_s) * 1e3
        return view


async def _run(server: Server, link: SupervisorLink | None, took: Took) -> None:
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[None]] = []

    def drain() -> None:
        draining.append(asyncio.create_task(server.drain()))

    await server.start()
    # What was loaded stays: the collector need not look through a model and its libraries again while requests wait.
    gc.collect()
    gc.freeze()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    if link is not None:
        link.watch(drain, lambda: draining.append(asyncio.create_task(server.leave())))
        link.say(Ready(os.getpid(), server.port, server.metrics_port, took.attach_ms, took.model_ms))
    await server.wait()


def _one_task(settings: ServerSettings) -> ServingConfig:
    """The one task that the settings' paths name."""
    paths = {
        "NOWGRAPH_SERVER_SCHEMA_PATH": settings.schema_path,
        "NOWGRAPH_SERVER_ARENA_PATH": settings.arena_path,
        "NOWGRAPH_SERVER_CHECKPOINT_PATH": settings.checkpoint_path,
    }
    given = [path for path in paths.values() if path is not None]
    if len(given) < len(paths):
        missing = ", ".join(name for name, path in paths.items() if path is None)
        raise NotConfiguredError(f"the server needs {missing}, or NOWGRAPH_SERVER_CONFIG")
    schema, arena, checkpoint = given
    policy = None if settings.degraded_path is None else load_policy(settings.degraded_path)
    task = TaskConfig(checkpoint=checkpoint, degraded=policy)
    return ServingConfig(
        version=1, tenants=(TenantConfig(name=settings.tenant, schema=schema, arena=arena, tasks=(task,)),)
    )


def _secret_of(stream: StreamSettings, name: str) -> bytes | None:
    """The secret in a variable of the environment; the usual one has been read already."""
    if name == SECRET_ENV:
        return stream.secret_bytes()
    found = os.environ.get(name)
    return None if found is None else found.encode()
