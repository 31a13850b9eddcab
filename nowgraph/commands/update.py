"""``nowgraph update``: the writer as a process of its own; it keeps the live graph in an arena that servers map."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from graph_updater.embedded import UpdaterThread
from graph_updater.updater import Updater
from model_server.metrics import ProcessMetrics
from model_server.metrics_endpoint import MetricsEndpoint
from nowgraph.assembly import EMBEDDED, broker_address, live_source, parse_positions, updater_of
from nowgraph.commands.options import (
    ArenaPath,
    AsJson,
    Bootstrap,
    Quiet,
    SchemaPath,
    SnapshotEvery,
    SnapshotsUrl,
)
from nowgraph.commands.running import Stop, progress_line
from nowgraph.errors import UsageError
from nowgraph.loading import restored_graph, snapshot_settings
from nowgraph.report import emit, positions_text, progress_console
from nowgraph.tracing import configure_tracing
from stream.dead_letters import DeadLetters
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.errors import WriterBusyError
from temporal_graph.generations import WriterLock
from temporal_graph.graph import ARENA_BYTES, TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.snapshots import Snapshots

_TICK_S = 0.2


def update(
    *,
    schema: SchemaPath,
    arena: ArenaPath,
    bootstrap_servers: Bootstrap,
    history: Annotated[
        list[Path] | None,
        typer.Option("--history", help="Parquet or JSONL to load first; named as its topic or table."),
    ] = None,
    from_: Annotated[
        list[str] | None, typer.Option("--from", help="Where the history ends on Kafka: topic/partition=offset.")
    ] = None,
    arena_bytes: Annotated[
        int, typer.Option(help="Size of the arena: address space, pages as they are used.")
    ] = ARENA_BYTES,
    metrics_port: Annotated[int, typer.Option(help="The port of Prometheus metrics; 0 for none.")] = 9465,
    metrics_host: Annotated[
        str, typer.Option(envvar="NOWGRAPH_UPDATER_METRICS_HOST", help="The address they are served on.")
    ] = "127.0.0.1",
    snapshots: SnapshotsUrl = None,
    snapshot_every: SnapshotEvery = None,
    standby: Annotated[
        bool, typer.Option(help="While the arena has a writer, wait, and take its place when it ends.")
    ] = False,
    until_caught_up: Annotated[bool, typer.Option(help="End once the log's present end is applied.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Keep the live graph: history from files, then every event of the schema's topics, until stopped.

    Each start is a new generation, from the newest good snapshot and what the log has since, or rebuilt from files and
    log; servers switch to it once it has caught up.
    """
    if snapshots is not None and bootstrap_servers == EMBEDDED:
        raise UsageError("--snapshots: the embedded broker ends with this command, so its offsets mean nothing later")
    loaded, settings = load_schema(schema), snapshot_settings(snapshot_every)
    store = None if snapshots is None else Snapshots(snapshots)
    configure_tracing("nowgraph-updater", os.environ)
    stop = Stop(signal.SIGTERM, signal.SIGINT)
    if standby and not _takes_place(arena, stop, quiet=quiet):
        return
    begun_s = time.monotonic()
    with ExitStack() as stack:
        address = broker_address(bootstrap_servers, loaded, stack)
        stream = StreamSettings(kafka_bootstrap=address)
        if bootstrap_servers == EMBEDDED and not quiet:
            progress_console().print(f"Broker: {address}", highlight=False)
        producer = stack.enter_context(EventProducer(stream))
        graph = stack.enter_context(restored_graph(loaded, store, arena=arena, arena_bytes=arena_bytes, quiet=quiet))
        gaps: Literal["error", "allow"] = "error" if bootstrap_servers == EMBEDDED else "allow"
        source, logs = live_source(graph, history or [], stream, from_positions=parse_positions(from_ or []), gaps=gaps)
        dead_letters = DeadLetters(producer, settings=stream)
        updater = updater_of(graph, source, dead_letters, stream, settings=settings, logs=logs, snapshots=store)
        if metrics_port:
            endpoint = MetricsEndpoint(updater.metrics, ProcessMetrics(), host=metrics_host, port=metrics_port)
            stack.callback(endpoint.close)
        with UpdaterThread(updater) as running:
            _keep(updater, running, graph, stop, begun_s=begun_s, until_caught_up=until_caught_up, quiet=quiet)
        state = _state(updater, graph)
        if until_caught_up:
            # Equal for equal graphs, however their events came: what a rebuild is compared by.
            state["graph"] = graph.canonical_hash()
        emit([state], title="Stopped", as_json=as_json, document=state)


def _takes_place(arena: Path, stop: Stop, *, quiet: bool) -> bool:
    """Returns once the arena has no writer; False where it is time to stop."""
    told = quiet
    while True:
        try:
            WriterLock(arena).close()
        except WriterBusyError as error:
            if not told:
                progress_console().print(f"Standing by: {error}", highlight=False)
                told = True
            if stop.wait(_TICK_S):
                return False
        else:
            return True


def _keep(
    updater: Updater,
    running: UpdaterThread,
    graph: TemporalGraph,
    stop: Stop,
    *,
    begun_s: float,
    until_caught_up: bool,
    quiet: bool,
) -> None:
    """Publishes the generation once it has caught up, shows progress, and returns when it is time to stop."""
    published = False
    with progress_line(quiet=quiet) as show:
        while running.alive and not stop.wait(_TICK_S):
            if not published and updater.caught_up():
                graph.publish_generation()
                published = True
                updater.metrics.ready_seconds.set(time.monotonic() - begun_s)
                show(f"generation {graph.generation} serves", lasting=True)
            if published and until_caught_up:
                break
            show(_progress(updater))


def _progress(updater: Updater) -> str:
    value = updater.metrics.registry.get_sample_value
    applied = value("nowgraph_events_applied_total") or 0
    duplicate = value("nowgraph_events_duplicate_total") or 0
    watermark_s = value("nowgraph_watermark_seconds") or 0
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(watermark_s)) if watermark_s else "-"
    state = "behind" if updater.behind else "live"
    return f"{applied:,.0f} events applied, {duplicate:,.0f} duplicate; up to {until} UTC; {state}"


def _state(updater: Updater, graph: TemporalGraph) -> dict[str, object]:
    value = updater.metrics.registry.get_sample_value
    return {
        "generation": graph.generation,
        "applied": int(value("nowgraph_events_applied_total") or 0),
        "duplicate": int(value("nowgraph_events_duplicate_total") or 0),
        "used bytes": graph.memory().used_bytes,
        "positions": positions_text(graph.positions),
    }
