"""``nowgraph serve``: answers over gRPC, beside an updater's arena, from a store, or with a graph of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nowgraph.commands.options import (
    AsJson,
    CheckpointSchemaPath,
    FixedShape,
    History,
    Quiet,
    SnapshotEvery,
    SnapshotsUrl,
    StoreUrl,
)
from nowgraph.commands.running import Stop, end_on
from nowgraph.errors import UsageError
from nowgraph.report import emit_json, progress_console
from nowgraph.tracing import configure_tracing

if TYPE_CHECKING:
    from graph_updater.metrics import UpdaterMetrics
    from model_server.config import ServingConfig
    from model_server.models.loader import Models
    from model_server.settings import ServerSettings
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
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint", help="Folder that `nowgraph train` made.")] = None,
    registry: Annotated[
        str | None, typer.Option(help="In its place a registry of models (with --task): its channel is followed.")
    ] = None,
    task: Annotated[str, typer.Option(help="With --registry: the task's name.")] = "",
    channel: Annotated[str, typer.Option(help="With --registry: the channel.")] = "live",
    config: Annotated[
        Path | None,
        typer.Option(envvar="NOWGRAPH_SERVER_CONFIG", help="serving.yaml: several tenants and tasks in one process."),
    ] = None,
    schema: CheckpointSchemaPath = None,
    arena: Annotated[
        Path | None, typer.Option("--arena", help="The live graph of a running `nowgraph update`.")
    ] = None,
    store: StoreUrl = None,
    bootstrap_servers: Annotated[
        str,
        typer.Option(envvar="KAFKA_BOOTSTRAP", help="Kafka as host:port, or: embedded. Empty: no log, no new events."),
    ] = "",
    history: History = None,
    snapshots: SnapshotsUrl = None,
    snapshot_every: SnapshotEvery = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port of gRPC; 0 takes a free one.")] = 50051,
    metrics_port: Annotated[int, typer.Option(help="The port of Prometheus; 0 takes a free one.")] = 9464,
    workers: Annotated[
        int, typer.Option(min=1, max=WORKERS_MAX, help="Processes that share the port, and the --arena or --store.")
    ] = 1,
    fixed_shape: FixedShape = False,
    device: Annotated[
        str | None, typer.Option(help="Where models compute: cpu (default), cuda or cuda:N.", show_default=False)
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Serve answers over gRPC until stopped.

    With --arena beside a `nowgraph update`, with --store from the graph that others keep in Redis; without either in
    one process: the newest good snapshot or history, then Kafka, into a graph of its own.
    Of several --workers each is restarted when it ends; SIGHUP replaces them one by one, under load.
    """
    end_on(signal.SIGTERM, signal.SIGINT)
    feed = _Feed(bootstrap_servers, history or [], snapshots, snapshot_every)
    given = _Given(context, checkpoint, registry, task, channel, config, schema, arena, store)
    settings = given.settings({"host": host, "port": port, "metrics_port": metrics_port})
    if fixed_shape:  # without the option the environment decides
        settings = settings.model_copy(update={"fixed_shape": True})
    if device is not None:
        settings = settings.model_copy(update={"device": device})
    if workers > 1:
        _several(context, settings, workers, quiet=quiet, as_json=as_json)
        return
    configure_tracing("nowgraph-server", os.environ)
    if arena is not None or store is not None or config is not None:
        _beside(settings, given, feed)
        return
    _in_one_process(settings, given, feed.checked(), quiet=quiet, as_json=as_json)


@dataclass(frozen=True)
class _Given:
    """Which models are to be served: of a checkpoint's folder, a registry's channel, or all that serving.yaml says."""

    context: typer.Context
    checkpoint: Path | None
    registry: str | None
    task: str
    channel: str
    config: Path | None
    schema: Path | None
    arena: Path | None
    store: str | None

    def settings(self, ports: dict[str, Any]) -> ServerSettings:
        """The server's settings, with these on top; serving.yaml's own go before an option that was not given."""
        from pydantic import SecretStr

        from model_server.config import load_serving
        from model_server.settings import ServerSettings
        from nowgraph.assembly import schema_of

        if sum(one is not None for one in (self.checkpoint, self.registry, self.config)) != 1:
            raise UsageError("one of --checkpoint, --registry and --config says which models are served")
        if self.config is not None:
            if self.arena is not None or self.schema is not None or self._said("store"):
                raise UsageError("with --config schemas, arenas and stores stand in that file")
            said = {name: ports[name] for name in ports if self._said(name)}
            return load_serving(self.config).settings().model_copy(update={**said, "config": self.config})
        if self.arena is not None and self.store is not None:
            raise UsageError("--arena or --store: the graph is in one of the two")
        if self.checkpoint is not None:
            schema = schema_of(self.checkpoint, self.schema)
        elif self.schema is None or not self.task:
            raise UsageError("--registry needs --task (whose models) and --schema (which tables there are)")
        else:
            schema = self.schema
        return ServerSettings(
            **ports,
            schema_path=schema,
            arena_path=self.arena,
            store_url=None if self.store is None else SecretStr(self.store),
            checkpoint_path=self.checkpoint,
            config=None,
        )

    def serving(self) -> ServingConfig | None:
        """What serving.yaml would say of a registry's channel beside a graph of others; None where settings say all."""
        from model_server.config import ServingConfig

        if self.registry is None or (self.arena is None and self.store is None):
            return None
        task = {"name": self.task, "registry": self.registry, "channel": self.channel}
        tenant = {"schema": self.schema, "arena": self.arena, "store": self.store, "tasks": [task]}
        return ServingConfig.model_validate({"version": 1, "tenants": [tenant]})

    def models(self, settings: ServerSettings) -> Path | Models:
        """What a server with a graph of its own takes its models from."""
        from model_server.models.loader import RegistryModels
        from model_server.models.registry import Registry

        if self.checkpoint is not None:
            return self.checkpoint
        assert self.registry is not None  # or there would be a configuration
        registry = Registry(self.registry, cache=settings.model_cache_path)
        return RegistryModels(registry, self.task, self.channel, device=settings.device)

    def _said(self, name: str) -> bool:
        source = self.context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"


@dataclass(frozen=True)
class _Feed:
    """What a graph of this process is made of and kept up to date by."""

    bootstrap: str
    history: list[Path]
    snapshots: str | None
    snapshot_every: str | None

    def checked(self) -> _Feed:
        """Itself; raises UsageError where there is nothing to feed from, or no log that outlives the process."""
        from nowgraph.assembly import EMBEDDED

        if not self.bootstrap and not self.history:
            raise UsageError(
                "without --arena or --store, --history or --bootstrap-servers says what the graph holds "
                "(embedded starts a broker)"
            )
        if self.snapshots is not None and self.bootstrap in ("", EMBEDDED):
            raise UsageError("--snapshots need a log that outlives this command: give --bootstrap-servers")
        return self


def _beside(settings: ServerSettings, given: _Given, feed: _Feed) -> None:
    from model_server import attached
    from nowgraph.assembly import EMBEDDED
    from stream.settings import StreamSettings

    if feed.history or feed.bootstrap == EMBEDDED or feed.snapshots is not None:
        raise UsageError(
            "with --arena or --store the updater loads history, makes snapshots and runs the broker: "
            "give these options to it"
        )
    stream = StreamSettings(kafka_bootstrap=feed.bootstrap) if feed.bootstrap else None
    attached.serve(settings, stream, given.serving())


def _several(context: typer.Context, settings: ServerSettings, workers: int, *, quiet: bool, as_json: bool) -> None:
    from nowgraph.workers import run_workers, worker_command

    if settings.arena_path is None and settings.store_url is None and settings.config is None:
        raise UsageError("--workers share the graph of a running `nowgraph update`: give its --arena or --store")

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
    updater: UpdaterMetrics | None = None


def _in_one_process(settings: ServerSettings, given: _Given, feed: _Feed, *, quiet: bool, as_json: bool) -> None:
    stop = Stop(signal.SIGTERM, signal.SIGINT)  # before the imports, which take seconds
    from model_server.background import BackgroundServer
    from model_server.loading import check_device
    from nowgraph.assembly import embedded_server, share_one_process
    from nowgraph.hints import example_call
    from temporal_graph.schema import load_schema

    check_device(settings)  # before the history is loaded
    share_one_process()
    assert settings.schema_path is not None
    schema, models = load_schema(settings.schema_path), given.models(settings)
    with ExitStack() as stack:
        if feed.bootstrap:
            fed = _live(schema, feed, stack, stop, quiet=quiet)
        else:
            fed = _still(schema, feed.history, stack, stop, quiet=quiet)
        if fed is None or stop.came:
            return
        server = stack.enter_context(
            BackgroundServer(
                lambda: embedded_server(fed.graph, models, settings, stream=fed.stream, producer=fed.producer)
            )
        )
        if fed.updater is not None:
            server.server.show(fed.updater)
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


def _live(schema: Schema, feed: _Feed, stack: ExitStack, stop: Stop, *, quiet: bool) -> _Fed | None:
    """Snapshot or history, then Kafka, by an updater of this process; returns when the graph has caught up, or where
    it is time to stop.
    """
    from graph_updater.embedded import UpdaterThread
    from nowgraph.assembly import EMBEDDED, broker_address, live_source, updater_of
    from nowgraph.commands.running import progress_line
    from nowgraph.loading import restored_graph, snapshot_settings
    from stream.dead_letters import DeadLetters
    from stream.patience import patiently
    from stream.producer import EventProducer
    from stream.settings import StreamSettings
    from temporal_graph.snapshots import Snapshots

    begun_s = time.monotonic()
    updating, store = (
        snapshot_settings(feed.snapshot_every),
        None if feed.snapshots is None else Snapshots(feed.snapshots),
    )
    stream = StreamSettings(kafka_bootstrap=broker_address(feed.bootstrap, schema, stack))
    producer = stack.enter_context(EventProducer(stream))
    graph = stack.enter_context(restored_graph(schema, store, quiet=quiet))
    gaps: Literal["error", "allow"] = "error" if feed.bootstrap == EMBEDDED else "allow"
    live = patiently(lambda: live_source(graph, feed.history, stream, gaps=gaps), stream.start_patience_s, stop.wait)
    if live is None:
        return None
    source, logs = live
    letters = DeadLetters(producer, settings=stream)
    updater = updater_of(graph, source, letters, stream, settings=updating, logs=logs, snapshots=store)
    running = stack.enter_context(UpdaterThread(updater))
    with progress_line(quiet=quiet) as show:
        while running.alive and not updater.caught_up() and not stop.wait(_TICK_S):
            show(f"{sum(graph.positions.values()):,} events in the graph")
        show(f"{sum(graph.positions.values()):,} events in the graph", lasting=True)
    running.check()
    updater.metrics.ready_seconds.set(time.monotonic() - begun_s)
    return _Fed(graph, stream, stream.kafka_bootstrap, producer, lambda: running.alive, updater.metrics)


def _still(schema: Schema, history: list[Path], stack: ExitStack, stop: Stop, *, quiet: bool) -> _Fed:
    """A graph of files alone: answers are not recorded, and there is no log to ingest into."""
    from nowgraph.loading import load_files
    from stream.settings import StreamSettings
    from temporal_graph.graph import TemporalGraph

    graph = stack.enter_context(TemporalGraph.create(schema))
    load_files(graph, history, quiet=quiet, stopped=lambda: stop.came)
    return _Fed(graph, StreamSettings(), None, None, lambda: True)
