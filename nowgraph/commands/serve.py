"""``nowgraph serve``: answers over gRPC, beside an updater's arena or as one process with its own updater."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from nowgraph.commands.options import AsJson, Quiet, SchemaPath
from nowgraph.errors import UsageError
from nowgraph.report import emit_json, progress_console

_TICK_S = 0.2


def serve(
    *,
    schema: SchemaPath,
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="Folder that `nowgraph train` made.")],
    arena: Annotated[
        Path | None, typer.Option("--arena", help="The live graph of a running `nowgraph update`.")
    ] = None,
    bootstrap_servers: Annotated[
        str,
        typer.Option(
            envvar="KAFKA_BOOTSTRAP", help="Kafka as host:port, or: embedded. Empty: no log (only with --arena)."
        ),
    ] = "",
    history: Annotated[
        list[Path] | None, typer.Option("--history", help="Without --arena: files to load first.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port of gRPC; 0 takes a free one.")] = 50051,
    metrics_port: Annotated[int, typer.Option(help="The port of Prometheus; 0 takes a free one.")] = 9464,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Serve scores over gRPC until stopped.

    With --arena beside a `nowgraph update`; without it in one process: history, then Kafka, into a graph of its own.
    """
    from model_server.settings import ServerSettings

    settings = ServerSettings(
        host=host,
        port=port,
        metrics_port=metrics_port,
        schema_path=schema,
        arena_path=arena,
        checkpoint_path=checkpoint,
    )
    if arena is not None:
        _beside(settings, bootstrap_servers, history or [])
        return
    if not bootstrap_servers:
        raise UsageError("without --arena, --bootstrap-servers says where events come from (embedded starts a broker)")
    _in_one_process(settings, bootstrap_servers, history or [], quiet=quiet, as_json=as_json)


def _beside(settings, bootstrap: str, history: list[Path]) -> None:  # type: ignore[no-untyped-def]
    from model_server import attached
    from nowgraph.assembly import EMBEDDED
    from stream.settings import StreamSettings

    if history or bootstrap == EMBEDDED:
        raise UsageError("with --arena the updater loads history and runs the broker: give these options to it")
    attached.serve(settings, StreamSettings(kafka_bootstrap=bootstrap) if bootstrap else None)


def _in_one_process(settings, bootstrap: str, history: list[Path], *, quiet: bool, as_json: bool) -> None:  # type: ignore[no-untyped-def]
    from graph_updater.embedded import UpdaterThread
    from model_server.background import BackgroundServer
    from nowgraph.assembly import EMBEDDED, broker_address, embedded_server, live_source, share_one_process, updater_of
    from nowgraph.commands.running import Stop, progress_line
    from stream.dead_letters import DeadLetters
    from stream.producer import EventProducer
    from stream.settings import StreamSettings
    from temporal_graph.graph import TemporalGraph
    from temporal_graph.schema import load_schema

    share_one_process()
    schema = load_schema(settings.schema_path)
    stop = Stop(signal.SIGTERM, signal.SIGINT)
    with ExitStack() as stack:
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
        server = stack.enter_context(
            BackgroundServer(
                lambda: embedded_server(graph, settings.checkpoint_path, settings, stream=stream, producer=producer)
            )
        )
        where = {"grpc": server.target, "kafka": stream.kafka_bootstrap, "metrics_port": server.server.metrics_port}
        if as_json:
            emit_json(where)
        elif not quiet:
            progress_console().print(f"Serving on {where['grpc']}, Kafka {where['kafka']}; stop with Ctrl-C")
        while running.alive and not stop.wait(_TICK_S):
            pass
