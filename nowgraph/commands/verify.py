"""``nowgraph verify``: the newest snapshot against a graph that is built anew from history and log.

snapshot ─► graph, its offsets ─► hash ─┐
files and Kafka up to those offsets ────┴─► graph ─► hash ─► equal, or not
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import structlog
import typer

from graph_updater.dead_letter_file import DeadLetterFile
from graph_updater.updater import Updater
from nowgraph.assembly import live_source, updater_of
from nowgraph.commands.options import AsJson, Bootstrap, History, Quiet, SchemaPath
from nowgraph.commands.running import progress_line
from nowgraph.errors import NowgraphError, UsageError
from nowgraph.report import emit, positions_text
from stream.batch import FILE_TOPIC_PREFIX, Positions
from stream.bounded_source import BoundedSource
from stream.settings import StreamSettings
from temporal_graph.graph import ARENA_BYTES, TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.snapshots import Snapshots

log = structlog.get_logger(__name__)


class IncompleteLogError(NowgraphError):
    """History and log do not hold what the snapshot does."""


def verify(
    *,
    schema: SchemaPath,
    snapshots: Annotated[str, typer.Option("--snapshots", help="Where they are: a folder or a URL.")],
    bootstrap_servers: Bootstrap,
    history: History = None,
    arena_bytes: Annotated[int, typer.Option(help="Size of each of the two graphs.")] = ARENA_BYTES,
    timeout: Annotated[float, typer.Option(help="Seconds without a record until the log counts as incomplete.")] = 30.0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild the graph from history and log up to where the newest snapshot stands, and compare the two.

    Exit code 1 where they differ. Nothing is written: records that cannot enter the graph are counted, not sent on.
    """
    loaded = load_schema(schema)
    restored = Snapshots(snapshots).restore(loaded, arena_bytes=arena_bytes)
    if restored is None:
        raise UsageError(f"{snapshots}: it has no snapshot that can be used")
    with restored.graph as graph:
        offsets, kept = graph.positions, _kept(graph)
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, DeadLetterFile(Path(folder) / "dead.jsonl") as dead:
        stream = StreamSettings(kafka_bootstrap=bootstrap_servers)
        with TemporalGraph.create(loaded, arena_bytes=arena_bytes) as graph:
            graph.topic_ids.update(restored.snapshot.topic_ids)
            bounded = bounded_log(graph, history or [], stream, offsets)
            rebuild(updater_of(graph, bounded, dead, stream), bounded, timeout, quiet=quiet)
            rebuilt = _kept(graph)
        rejected = dead.count
    document = {
        "snapshot": restored.snapshot.name,
        "equal": rebuilt == kept,
        "hash of the snapshot": kept,
        "hash of the rebuild": rebuilt,
        "dead letters": rejected,
        "seconds": round(time.monotonic() - begun_s, 1),
        "can't be used": ", ".join(f"{each.name}: {each.reason}" for each in restored.refused if not each.unfinished),
    }
    emit([document], title="Verified" if rebuilt == kept else "The two differ", as_json=as_json, document=document)
    if rebuilt != kept:
        raise typer.Exit(1)


def _kept(graph: TemporalGraph) -> str:
    """The hash of what retention keeps, whenever its last pass was."""
    graph.evict()
    return graph.canonical_hash()


def bounded_log(
    graph: TemporalGraph, history: Sequence[Path], stream: StreamSettings, ends: Positions
) -> BoundedSource:
    """History and log from where the graph stands up to these offsets.

    Raises IncompleteLogError where the log has lost some of that, which no history held in its place: a graph of the
    rest would pass for one of all.
    """
    begun = graph.positions
    source, logs = live_source(graph, history, stream)
    lost = lost_beginnings(begun, ends, logs[-1].positions)  # Kafka's, of which nothing is read yet
    if lost and not any(topic.startswith(FILE_TOPIC_PREFIX) for topic, _ in ends):
        source.close()
        places = ", ".join(f"{topic}/{part} before offset {low}" for (topic, part), low in lost.items())
        raise IncompleteLogError(f"the log no longer has {places}: a graph of the rest is not what was built from all")
    for (topic, part), low in lost.items():
        log.warning("log_without_its_beginning", topic=topic, partition=part, first_offset=low, instead="history")
    return BoundedSource(source, ends, begin=begun)


def lost_beginnings(begun: Positions, ends: Positions, begins: Positions) -> Positions:
    """The partitions of which a graph at ``begun`` lacks records before ``ends`` that the log, from ``begins`` on, has
    not; with the first offset that it has.
    """
    return {
        place: begins[place]
        for place, end in sorted(ends.items())
        if place in begins and begun.get(place, 0) < min(end, begins[place])
    }


def rebuild(updater: Updater, bounded: BoundedSource, timeout_s: float, *, quiet: bool) -> None:
    """Applies all that the source gives; raises IncompleteLogError where it falls silent before its end."""
    with progress_line(quiet=quiet) as show:
        try:
            last_s, last = time.monotonic(), bounded.lag_records()
            while not bounded.exhausted:
                updater.step()
                left = bounded.lag_records()
                if left < last:
                    last_s, last = time.monotonic(), left
                elif time.monotonic() - last_s > timeout_s:
                    places = positions_text(bounded.missing)
                    raise IncompleteLogError(f"for {timeout_s:g} s no record came after {places}")
                show(f"{left:,} records to go")
        finally:
            updater.close()
