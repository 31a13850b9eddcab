"""The server as its own process, beside the updater that writes the arena it reads.

settings ─► schema, arena, checkpoint ─► Server ─► SIGTERM or SIGINT ─► drain
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import structlog
import uvloop

from model_server.errors import NotConfiguredError
from model_server.generation import Follower, Generations, Served, serving_over
from model_server.loading import load_model
from model_server.server import Server
from model_server.settings import ServerSettings
from model_server.tracing import TracingInterceptor
from stream.privacy import privacy_for
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.errors import ArenaError
from temporal_graph.schema import Schema, load_schema
from temporal_graph.view import GraphView

log = structlog.get_logger(__name__)

# Between two looks for a graph that its writer has not published yet.
ATTACH_RETRY_S = 0.2


def serve(settings: ServerSettings, stream_settings: StreamSettings | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Without `stream_settings` nothing is published and Ingest is off.

    Raises NotConfiguredError when a path is missing, and what loading the schema, the arena or the checkpoint raises.
    """
    schema_path, arena, checkpoint = _paths(settings)
    schema = load_schema(schema_path)
    secret = (stream_settings or StreamSettings()).secret_bytes()
    privacy = privacy_for(schema, secret)

    def attach() -> Served:
        view = GraphView.attach(schema, arena)
        return serving_over(view, load_model(checkpoint, view, settings))

    wait_for_graph(schema, arena, timeout_s=settings.attach_timeout_s)
    generations = Generations(attach())
    follower = Follower(generations, attach, poll_s=settings.generation_poll_ms / 1e3)
    producer = None if stream_settings is None else EventProducer(stream_settings)
    predictions_topic = (stream_settings or StreamSettings()).predictions_topic
    try:
        uvloop.run(
            _run(
                Server(
                    generations,
                    settings,
                    privacy=privacy,
                    predictions_topic=predictions_topic,
                    event_log=producer,
                    follower=follower,
                    interceptors=(TracingInterceptor(),),
                )
            )
        )
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


async def _run(server: Server) -> None:
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[None]] = []
    await server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: draining.append(asyncio.create_task(server.drain())))
    await server.wait()


def _paths(settings: ServerSettings) -> tuple[Path, Path, Path]:
    paths = {
        "NOWGRAPH_SERVER_SCHEMA_PATH": settings.schema_path,
        "NOWGRAPH_SERVER_ARENA_PATH": settings.arena_path,
        "NOWGRAPH_SERVER_CHECKPOINT_PATH": settings.checkpoint_path,
    }
    given = [path for path in paths.values() if path is not None]
    if len(given) < len(paths):
        missing = ", ".join(name for name, path in paths.items() if path is None)
        raise NotConfiguredError(f"the server needs {missing}")
    return given[0], given[1], given[2]
