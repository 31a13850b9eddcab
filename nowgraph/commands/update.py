"""``nowgraph update``: the writer as a process of its own; it keeps the live graph in an arena that servers map."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from graph_updater.embedded import UpdaterThread
from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSettings
from graph_updater.snapshotter import Snapshotter
from graph_updater.updater import Updater
from model_server.metrics import ProcessMetrics
from model_server.metrics_endpoint import MetricsEndpoint
from nowgraph.assembly import EMBEDDED, broker_address, live_source, parse_positions, updater_of
from nowgraph.commands.options import (
    ArenaPath,
    AsJson,
    Bootstrap,
    ColumnsBytes,
    ColumnsPath,
    Quiet,
    SchemaPath,
    SnapshotEvery,
    SnapshotsUrl,
    StoreUrl,
)
from nowgraph.commands.running import Stop, progress_line
from nowgraph.errors import UsageError
from nowgraph.loading import restored_graph, snapshot_settings
from nowgraph.report import emit, positions_text, progress_console, time_text
from nowgraph.tracing import configure_tracing
from stream.dead_letters import DeadLetters
from stream.patience import patiently
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.columns import COLUMNS_BYTES
from temporal_graph.errors import OvertakenError
from temporal_graph.graph import ARENA_BYTES, TemporalGraph
from temporal_graph.schema import Schema, load_schema
from temporal_graph.snapshots import Snapshots

_TICK_S = 0.2


def update(
    *,
    schema: SchemaPath,
    bootstrap_servers: Bootstrap,
    arena: ArenaPath = None,
    store: StoreUrl = None,
    history: Annotated[
        list[Path] | None,
        typer.Option("--history", help="Parquet, CSV or JSONL to load first; named as its topic or table."),
    ] = None,
    from_: Annotated[
        list[str] | None,
        typer.Option("--from", help="Where the history ends on Kafka: topic/partition=offset, of all partitions."),
    ] = None,
    arena_bytes: Annotated[
        int, typer.Option(help="Size of the arena: address space, pages as they are used.")
    ] = ARENA_BYTES,
    columns: ColumnsPath = None,
    columns_bytes: ColumnsBytes = COLUMNS_BYTES,
    metrics_port: Annotated[int, typer.Option(help="The port of Prometheus metrics; 0 for none.")] = 9465,
    metrics_host: Annotated[
        str, typer.Option(envvar="NOWGRAPH_UPDATER_METRICS_HOST", help="The address they are served on.")
    ] = "127.0.0.1",
    snapshots: SnapshotsUrl = None,
    snapshot_every: SnapshotEvery = None,
    standby: Annotated[
        bool, typer.Option(help="While the arena has a writer, keep a graph beside it; take its place when it ends.")
    ] = False,
    until_caught_up: Annotated[bool, typer.Option(help="End once the log's present end is applied.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Keep the live graph: history from files, then every event of the schema's topics, until stopped.

    Each start is a new generation, from the newest good snapshot and what the log has since, or rebuilt from files and
    log; servers switch to it once it has caught up.
    """
    stop = Stop(signal.SIGTERM, signal.SIGINT)
    if snapshots is not None and bootstrap_servers == EMBEDDED:
        raise UsageError("--snapshots: the embedded broker ends with this command, so its offsets mean nothing later")
    if standby and (bootstrap_servers == EMBEDDED or until_caught_up):
        raise UsageError("--standby: it reads the log that its writer reads, for as long as that writes")
    if (arena is None) == (store is None):
        raise UsageError("--arena or --store: the graph is in one of the two")
    if store is not None and (history or from_ or snapshots or standby or bootstrap_servers == EMBEDDED):
        raise UsageError("--store: all of it comes from topics, which `nowgraph replay` fills, and stays in Redis")
    given = _Given(
        load_schema(schema),
        Path() if arena is None else arena,
        arena_bytes,
        columns,
        columns_bytes,
        bootstrap_servers,
        history or [],
        parse_positions(from_ or []),
        None if snapshots is None else Snapshots(snapshots),
        snapshot_settings(snapshot_every),
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        standby=standby,
        until_caught_up=until_caught_up,
        quiet=quiet,
    )
    configure_tracing("nowgraph-updater", os.environ)
    state = None if store is None else _in_store(given, store, stop)
    while state is None:
        state = _generation(given, stop)  # None: overtaken, so what was built can never serve, and it stands by anew
    emit([state], title="Stopped", as_json=as_json, document=state)


@dataclass(frozen=True)
class _Given:
    """The command's options, read."""

    schema: Schema
    arena: Path
    arena_bytes: int
    columns: Path | None
    columns_bytes: int
    bootstrap: str
    history: list[Path]
    from_: Mapping[tuple[str, int], int]
    store: Snapshots | None
    settings: UpdaterSettings
    metrics_port: int
    metrics_host: str
    standby: bool
    until_caught_up: bool
    quiet: bool


def _in_store(given: _Given, store: str, stop: Stop) -> dict[str, object]:
    """Keeps a share of the graph in Redis until it is time to stop."""
    from nowgraph.commands.update_store import Membership, keep_in_store

    metrics = UpdaterMetrics()
    member = Membership(
        given.schema,
        store,
        StreamSettings(kafka_bootstrap=given.bootstrap),
        given.settings,
        metrics,
        until_caught_up=given.until_caught_up,
        quiet=given.quiet,
    )
    with ExitStack() as stack:
        if given.metrics_port:
            stack.callback(_endpoint(given, metrics).close)
        return keep_in_store(member, stop)


def _generation(given: _Given, stop: Stop) -> dict[str, object] | None:
    """Builds a generation and keeps it up to date until it is time to stop; None where another overtook it.

    A stop while it starts ends it before the next step: nothing was published, and the next start clears up after it.
    """
    begun_s = time.monotonic()
    with ExitStack() as stack:
        address = broker_address(given.bootstrap, given.schema, stack)
        stream = StreamSettings(kafka_bootstrap=address)
        embedded = given.bootstrap == EMBEDDED
        if embedded and not given.quiet:
            progress_console().print(f"Broker: {address}", highlight=False)
        producer = stack.enter_context(EventProducer(stream))
        graph = stack.enter_context(
            restored_graph(
                given.schema, given.store, arena=given.arena, arena_bytes=given.arena_bytes, columns=given.columns,
                columns_bytes=given.columns_bytes, standby=given.standby, quiet=given.quiet,
            )
        )  # fmt: skip
        gaps: Literal["error", "allow"] = "error" if embedded else "allow"
        live = patiently(
            lambda: live_source(graph, given.history, stream, from_positions=given.from_, gaps=gaps),
            stream.start_patience_s,
            stop.wait,
        )
        if live is None:
            return _state(UpdaterMetrics(), graph)
        source, logs = live
        dead_letters = DeadLetters(producer, settings=stream)
        # Of two that make snapshots in one place each would remove the other's: who stands by makes none.
        snapshots = None if given.standby else given.store
        updater = updater_of(
            graph, source, dead_letters, stream, settings=given.settings, logs=logs, snapshots=snapshots
        )
        if given.metrics_port:
            stack.callback(_endpoint(given, updater.metrics).close)
        with UpdaterThread(updater) as running:
            try:
                if given.standby:
                    begun_s = _stand_by(given, updater, running, graph, stop)
            except OvertakenError:
                return None
            _keep(given, updater, running, graph, stop, begun_s=begun_s)
        state = _state(updater.metrics, graph)
        if given.until_caught_up:
            # Equal for equal graphs, however their events came: what a rebuild is compared by.
            state["graph"] = graph.canonical_hash()
        return state


def _endpoint(given: _Given, metrics: UpdaterMetrics) -> MetricsEndpoint:
    try:
        return MetricsEndpoint(metrics, ProcessMetrics(), host=given.metrics_host, port=given.metrics_port)
    except OSError as error:  # most likely the updater's that this one stands by for
        raise UsageError(f"--metrics-port {given.metrics_port}: {error.strerror}") from error


def _stand_by(given: _Given, updater: Updater, running: UpdaterThread, graph: TemporalGraph, stop: Stop) -> float:
    """Keeps the graph up to date beside the arena's writer until there is none; returns when it took its place."""
    told = False
    updater.metrics.standing_by.set(1)
    with progress_line(quiet=given.quiet) as show:
        while not graph.take_place():
            if not told and updater.caught_up():
                show(f"Standing by: {given.arena} has a writer, generation {graph.generation} is ready", lasting=True)
                told = True
            show(_progress(updater))
            if not running.alive or stop.wait(_TICK_S):
                return time.monotonic()
    taken_s = time.monotonic()
    updater.metrics.standing_by.set(0)
    store = given.store
    updater.take_place(None if store is None else Snapshotter(graph, store, given.settings, updater.metrics))
    return taken_s


def _keep(
    given: _Given, updater: Updater, running: UpdaterThread, graph: TemporalGraph, stop: Stop, *, begun_s: float
) -> None:
    """Publishes the generation once it has caught up, shows progress, and returns when it is time to stop."""
    published = False
    with progress_line(quiet=given.quiet) as show:
        while running.alive and not stop.wait(_TICK_S):
            if not published and updater.caught_up():
                graph.publish_generation()
                published = True
                updater.metrics.ready_seconds.set(time.monotonic() - begun_s)
                show(f"generation {graph.generation} serves", lasting=True)
            if published and given.until_caught_up:
                break
            show(_progress(updater))


def _progress(updater: Updater) -> str:
    value = updater.metrics.registry.get_sample_value
    applied = value("nowgraph_events_applied_total") or 0
    duplicate = value("nowgraph_events_duplicate_total") or 0
    watermark_s = value("nowgraph_watermark_seconds") or 0
    until = time_text(round(watermark_s * 1e6)) if watermark_s else "-"
    state = "behind" if updater.behind else "live"
    return f"{applied:,.0f} events applied, {duplicate:,.0f} duplicate; up to {until}; {state}"


def _state(metrics: UpdaterMetrics, graph: TemporalGraph) -> dict[str, object]:
    value = metrics.registry.get_sample_value
    return {
        "generation": graph.generation,
        "applied": int(value("nowgraph_events_applied_total") or 0),
        "duplicate": int(value("nowgraph_events_duplicate_total") or 0),
        "used bytes": graph.memory().used_bytes,
        "positions": positions_text(graph.positions),
    }
