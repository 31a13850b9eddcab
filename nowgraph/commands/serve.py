"""``nowgraph serve``: answers over gRPC, beside an updater's arena or as one process with a graph of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nowgraph.commands.options import AsJson, CheckpointPath, CheckpointSchemaPath, FixedShape, History, Quiet
from nowgraph.errors import UsageError
from nowgraph.report import emit_json, progress_console

if TYPE_CHECKING:
    from model_server.settings import ServerSettings
    from nowgraph.commands.running import Stop
    from stream.producer import EventProducer
    from stream.settings import StreamSettings
    from temporal_graph.graph import TemporalGraph
    from temporal_graph.schema import Schema

_TICK_S = 0.2
# More processes than cores answer no more; this stops a slip of the finger.
WORKERS_MAX = 256


def serve(
    context: typer.Context,
    *,
    checkpoint: CheckpointPath,
    schema: CheckpointSchemaPath = None,
    arena: Annotated[
        Path | None, typer.Option("--arena", help="The live graph of a running `nowgraph update`.")
    ] = None,
    bootstrap_servers: Annotated[
        str,
        typer.Option(envvar="KAFKA_BOOTSTRAP", help="Kafka as host:port, or: embedded. Empty: no log, no new events."),
    ] = "",
    history: History = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port of gRPC; 0 takes a free one.")] = 50051,
    metrics_port: Annotated[int, typer.Option(help="The port of Prometheus; 0 takes a free one.")] = 9464,
    workers: Annotated[
        int, typer.Option(min=1, max=WORKERS_MAX, help="Processes that share the port and the --arena.")
    ] = 1,
    fixed_shape: FixedShape = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Serve answers over gRPC until stopped.

    With --arena beside a `nowgraph update`; without it in one process: history, then Kafka, into a graph of its own.
    Of several --workers each is restarted when it ends; SIGHUP replaces them one by one, under load.
    """
    from model_server.settings import ServerSettings
    from nowgraph.assembly import schema_of

    files = history or []
    settings = ServerSettings(
        host=host,
        port=port,
        metrics_port=metrics_port,
        schema_path=schema_of(checkpoint, schema),
        arena_path=arena,
        checkpoint_path=checkpoint,
    )
    if fixed_shape:  # without the option the environment decides
        settings = settings.model_copy(update={"fixed_shape": True})
    if workers > 1:
        _several(context, settings, workers, quiet=quiet, as_json=as_json)
        return
    if arena is not None:
        _beside(settings, bootstrap_servers, files)
        return
    if not bootstrap_servers and not files:
        raise UsageError(
            "without --arena, --history or --bootstrap-servers says what the graph holds (embedded starts a broker)"
        )
    _in_one_process(settings, bootstrap_servers, files, quiet=quiet, as_json=as_json)


def _beside(settings: ServerSettings, bootstrap: str, history: list[Path]) -> None:
    from model_server import attached
    from nowgraph.assembly import EMBEDDED
    from stream.settings import StreamSettings

    if history or bootstrap == EMBEDDED:
        raise UsageError("with --arena the updater loads history and runs the broker: give these options to it")
    attached.serve(settings, StreamSettings(kafka_bootstrap=bootstrap) if bootstrap else None)


def _several(context: typer.Context, settings: ServerSettings, workers: int, *, quiet: bool, as_json: bool) -> None:
    from nowgraph.workers import run_workers, worker_command

    if settings.arena_path is None:
        raise UsageError("--workers share the graph of a running `nowgraph update`: give its --arena")

    def say(where: dict[str, object]) -> None:
        if as_json:
            emit_json(where)
        elif not quiet:
            text = f"Serving on {where['grpc']} by {workers} processes; SIGHUP replaces them one by one"
            progress_console().print(text, highlight=False, soft_wrap=True)

    run_workers(
        settings,
        workers,
        lambda port: worker_command(context, port=port, metrics_port=0, quiet=True, as_json=False),
        all_serve=say,
    )


@dataclass(frozen=True)
class _Fed:
    """A graph that holds its history, what keeps feeding it, and where answers are recorded; `kafka` is its address."""

    graph: TemporalGraph
    stream: StreamSettings
    kafka: str | None
    producer: EventProducer | None
    alive: Callable[[], bool]


def _in_one_process(
    settings: ServerSettings, bootstrap: str, history: list[Path], *, quiet: bool, as_json: bool
) -> None:
    from model_server.background import BackgroundServer
    from nowgraph.assembly import embedded_server, share_one_process
    from nowgraph.commands.running import Stop
    from nowgraph.hints import example_call
    from temporal_graph.schema import load_schema

    share_one_process()
    assert settings.schema_path is not None
    assert settings.checkpoint_path is not None
    schema, checkpoint = load_schema(settings.schema_path), settings.checkpoint_path
    stop = Stop(signal.SIGTERM, signal.SIGINT)
    with ExitStack() as stack:
        if bootstrap:
            fed = _live(schema, bootstrap, history, stack, stop, quiet=quiet)
        else:
            fed = _still(schema, history, stack, quiet=quiet)
        server = stack.enter_context(
            BackgroundServer(
                lambda: embedded_server(fed.graph, checkpoint, settings, stream=fed.stream, producer=fed.producer)
            )
        )
        where = {"grpc": server.target, "kafka": fed.kafka, "metrics_port": server.server.metrics_port}
        if as_json:
            emit_json(where)
        elif not quiet:
            source = "without Kafka: nothing new comes in" if fed.kafka is None else f"Kafka {fed.kafka}"
            console = progress_console()
            console.print(
                f"Serving on {server.target}, {source}; stop with Ctrl-C. Try:", highlight=False, soft_wrap=True
            )
            hint = example_call(fed.graph.view(), server.server.task.target, server.target)
            console.print(f"  {hint}", highlight=False, markup=False, soft_wrap=True)
        while fed.alive() and not stop.wait(_TICK_S):
            pass


def _live(schema: Schema, bootstrap: str, history: list[Path], stack: ExitStack, stop: Stop, *, quiet: bool) -> _Fed:
    """History, then Kafka, by an updater of this process; returns when the graph has caught up."""
    from graph_updater.embedded import UpdaterThread
    from nowgraph.assembly import EMBEDDED, broker_address, live_source, updater_of
    from nowgraph.commands.running import progress_line
    from stream.dead_letters import DeadLetters
    from stream.producer import EventProducer
    from stream.settings import StreamSettings
    from temporal_graph.graph import TemporalGraph

    stream = StreamSettings(kafka_bootstrap=broker_address(bootstrap, schema, stack))
    producer = stack.enter_context(EventProducer(stream))
    graph = stack.enter_context(TemporalGraph.create(schema))
    source, logs = live_source(graph, history, stream, gaps="error" if bootstrap == EMBEDDED else "allow")
    updater = updater_of(graph, source, DeadLetters(producer, settings=stream), stream, logs=logs)
    running = stack.enter_context(UpdaterThread(updater))
    with progress_line(quiet=quiet) as show:
        while running.alive and not updater.caught_up() and not stop.wait(_TICK_S):
            show(f"{sum(graph.positions.values()):,} events in the graph")
    running.check()
    return _Fed(graph, stream, stream.kafka_bootstrap, producer, lambda: running.alive)


def _still(schema: Schema, history: list[Path], stack: ExitStack, *, quiet: bool) -> _Fed:
    """A graph of files alone: answers are not recorded, and there is no log to ingest into."""
    from nowgraph.loading import load_files
    from stream.settings import StreamSettings
    from temporal_graph.graph import TemporalGraph

    graph = stack.enter_context(TemporalGraph.create(schema))
    load_files(graph, history, quiet=quiet)
    return _Fed(graph, StreamSettings(), None, None, lambda: True)
