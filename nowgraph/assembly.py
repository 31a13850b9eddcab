"""How the parts become a running system: schema, settings and files in; sources, updater, graph and server out.

The one place, with the demo, that knows every package's constructors; the commands and the demo share it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog

from graph_updater.lag import HasEnds
from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSettings
from graph_updater.snapshotter import Snapshotter
from graph_updater.updater import DeadLetters as DeadLetterSink
from graph_updater.updater import Updater
from nowgraph.errors import UsageError
from stream.decode import Decoder
from stream.embedded_broker import EmbeddedBroker
from stream.file_rows import FILE_SUFFIXES, FileTable
from stream.file_source import FileSource
from stream.kafka_source import KafkaSource
from stream.privacy import Privacy, privacy_for
from stream.producer import EventProducer
from stream.settings import EVENTS_TOPIC, StreamSettings
from stream.source import ChainSource, Source
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema

if TYPE_CHECKING:
    from graph_transformer.target import Target
    from model_server.models.loader import Models
    from model_server.server import Server
    from model_server.settings import ServerSettings
    from temporal_graph.snapshots import Snapshots
    from temporal_graph.view import GraphView

log = structlog.get_logger(__name__)

Positions = Mapping[tuple[str, int], int]


EMBEDDED = "embedded"
"""In place of Kafka's address: librdkafka's mock cluster, in this process."""


DEAD_LETTERS_NAME = "dead-letters.jsonl"
"""Where rows of history that do not fit are kept; no history itself, though it may lie in the same folder."""

SCHEMA_NAME = "schema.yaml"
"""The schema in the folder of a checkpoint."""


def share_one_process() -> None:
    """Lets the threads of updater, server and client take turns on Python's lock five times as often as by default.

    Each hand-over may wait for the whole interval, and an event passes several of them: with 1 ms in place of 5 ms the
    99th percentile from Kafka to visible fell from 200 to 30 ms, and more was scored a second, on two busy cores.
    """
    sys.setswitchinterval(0.001)


def schema_of(checkpoint: Path, schema: Path | None) -> Path:
    """The schema that was asked for, else the one that training left beside the checkpoint.

    Raises UsageError where there is neither.
    """
    if schema is not None:
        return schema
    beside = checkpoint / SCHEMA_NAME
    if not beside.is_file():
        raise UsageError(f"{checkpoint}: it has no {SCHEMA_NAME}, so --schema must say which tables there are")
    return beside


def privacy_of(schema: Schema, settings: StreamSettings) -> Privacy | None:
    """What hashes private values at the door; raises ConfigurationError where it needs a secret that is not set."""
    return privacy_for(schema, settings.secret_bytes())


def broker_address(bootstrap: str, schema: Schema, stack: ExitStack, *, partitions: int = 2) -> str:
    """The address of Kafka; starts the embedded broker with the schema's topics where the address asks for it."""
    if bootstrap != EMBEDDED:
        return bootstrap
    defaults = StreamSettings()
    topics = dict.fromkeys(topics_of(schema), partitions)
    topics |= {defaults.dead_letter_topic: 1, defaults.predictions_topic: partitions}
    topics.setdefault(EVENTS_TOPIC, partitions)
    return stack.enter_context(EmbeddedBroker(topics)).bootstrap


def topics_of(schema: Schema) -> tuple[str, ...]:
    """The topics of the schema's sources, each once, in its order; none where rows come by Ingest alone."""
    return tuple(dict.fromkeys(source.topic for source in schema.sources))


def history_source(
    schema: Schema,
    files: Sequence[Path],
    settings: StreamSettings,
    *,
    positions: Positions | None = None,
    speed: float | None = None,
) -> FileSource:
    """The rows of files, merged by event time; a file's name up to the first dot is its topic or table.

    A folder stands for the files directly in it, by name, but not for its dead letters.
    """
    tables = [FileTable.of(schema, path) for path in files_of(files)]
    return FileSource(schema, tables, positions=positions, speed=speed, privacy=privacy_of(schema, settings))


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Each folder as the files in it that may be tables, by name; raises UsageError where there are none."""
    found: list[Path] = []
    for path in paths:
        inside = [each for each in sorted(path.glob("*")) if each.suffix in FILE_SUFFIXES]
        inside = [each for each in inside if each.name != DEAD_LETTERS_NAME]
        if not inside and not path.is_file():
            raise UsageError(f"{path}: no such file, nor a folder with {', '.join(FILE_SUFFIXES)} files")
        found += inside or [path]
    return found


def live_source(
    graph: TemporalGraph,
    files: Sequence[Path],
    settings: StreamSettings,
    *,
    from_positions: Positions | None = None,
    gaps: Literal["error", "allow"] = "allow",
) -> tuple[Source, list[HasEnds]]:
    """History in files first, then Kafka: from the graph's positions, else from the given ones, else its beginning.

    Returns the whole and its parts, which say how far there is to go: without the files a graph whose topics are
    empty would count as caught up before its history is loaded.
    """
    schema = graph.schema
    positions = {**(from_positions or {}), **graph.positions}
    topics, later = read_topics(schema)
    keep_id = graph.topic_ids.setdefault
    kafka = KafkaSource(topics, positions=positions, gaps=gaps, later=later, keep_id=keep_id, settings=settings)
    if not files:
        return kafka, [kafka]
    history = history_source(schema, files, settings, positions=graph.positions)
    return ChainSource([history, kafka]), [history, kafka]


def read_topics(schema: Schema) -> tuple[Sequence[str], Sequence[str]]:
    """What is read of Kafka: topics that have to exist, and those that may be made later.

    Later may come the topic of events that go by the server's Ingest, unless it is all there is.
    """
    topics = topics_of(schema)
    if not topics:
        return (EVENTS_TOPIC,), ()
    return topics, () if EVENTS_TOPIC in topics else (EVENTS_TOPIC,)


def updater_of(
    graph: TemporalGraph,
    source: Source,
    dead_letters: DeadLetterSink,
    stream: StreamSettings,
    *,
    settings: UpdaterSettings | None = None,
    metrics: UpdaterMetrics | None = None,
    logs: Sequence[HasEnds] | None = None,
    snapshots: Snapshots | None = None,
) -> Updater:
    """The writer of the graph, fed by the source; ``logs`` say how far there is to go, where the source does not.

    It leaves a snapshot in ``snapshots`` every interval of the settings.
    """
    decoder = Decoder(graph.schema, privacy_of(graph.schema, stream), settings=stream)
    settings = settings if settings is not None else UpdaterSettings()
    metrics = metrics if metrics is not None else UpdaterMetrics()
    snapshotter = None if snapshots is None else Snapshotter(graph, snapshots, settings, metrics)
    return Updater(
        graph, [source], decoder, dead_letters, settings=settings, metrics=metrics, logs=logs, snapshots=snapshotter
    )


def warn_without_labels(view: GraphView, target: Target) -> None:
    """Says so where a model learned from past labels and the graph has none: answers are worse, and nothing fails."""
    table = target.task_table
    if table is not None and view.row_count(table) == 0:
        log.warning("no_past_labels", table=table, hint=f"give {table}.parquet of the checkpoint's folder as --history")


def embedded_server(
    graph: TemporalGraph,
    models: Path | Models,
    settings: ServerSettings,
    *,
    stream: StreamSettings,
    producer: EventProducer | None,
) -> Server:
    """A server over a graph of this process; call it on the thread whose event loop will run the server.

    ``models``: the folder of a checkpoint, which is loaded once, or a registry's, whose channel is followed.
    """
    from model_server.calls import task_of
    from model_server.degraded import load_policy
    from model_server.generation import Generations, serving_over
    from model_server.loading import load_model
    from model_server.server import Server
    from model_server.serving import followed
    from model_server.tenants import TaskSource, TenantSource
    from model_server.tracing import TracingInterceptor

    view = graph.view()
    policy = None if settings.degraded_path is None else load_policy(settings.degraded_path)
    if isinstance(models, Path):
        task = TaskSource(Generations(serving_over(view, load_model(models, view, settings))))
    else:
        task = followed(models, settings, view, None)
    warn_without_labels(view, task_of(task.generations.current()).target)
    source = TenantSource(
        settings, [replace(task, policy=policy)], privacy_of(graph.schema, stream), stream.predictions_topic
    )
    return Server([source], settings, event_log=producer, interceptors=(TracingInterceptor(),))


def parse_positions(texts: Sequence[str]) -> dict[tuple[str, int], int]:
    """Reads ``topic/partition=offset``; raises UsageError for anything else."""
    positions: dict[tuple[str, int], int] = {}
    for text in texts:
        place, equals, offset = text.partition("=")
        topic, slash, partition = place.rpartition("/")
        if not (equals and slash and topic and partition.isdecimal() and offset.isdecimal()):
            raise UsageError(f"--from {text}: expected topic/partition=offset, such as transactions/0=1500")
        positions[topic, int(partition)] = int(offset)
    return positions
