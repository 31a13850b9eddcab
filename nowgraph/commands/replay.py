"""``nowgraph replay``: files -> Kafka topics, or straight into an arena, at full speed or a multiple of real time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from nowgraph.commands.options import AsJson, ColumnsPath, Quiet, SchemaPath
from nowgraph.errors import UsageError
from nowgraph.report import emit, progress_console
from stream.settings import EVENTS_TOPIC
from temporal_graph.schema import Schema, load_schema

_POLL_RECORDS = 5_000
_POLL_S = 0.1


def replay(
    *,
    schema: SchemaPath,
    files: Annotated[list[Path], typer.Argument(help="Parquet, CSV or JSONL; each named as its topic or table.")],
    bootstrap_servers: Annotated[
        str, typer.Option(envvar="KAFKA_BOOTSTRAP", help="Publish to the topics of this Kafka, as host:port.")
    ] = "",
    arena: Annotated[Path | None, typer.Option("--arena", help="Apply to a new graph in this folder instead.")] = None,
    columns: ColumnsPath = None,
    topic: Annotated[str, typer.Option(help="The topic that takes the events, as RowEvents.")] = EVENTS_TOPIC,
    speed: Annotated[
        float | None,
        typer.Option("--speed", min=0.0, help="Times real time: 60 is an hour a minute. Default: full speed."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Replay files as a stream, merged by event time.

    To Kafka every row goes as a RowEvent with both of its clocks, and under its row's key, so that a row's changes keep
    their order. Into an arena the rows are a backfill, and the graph stays there for servers and training.
    """
    loaded = load_schema(schema)
    if (arena is None) == (not bootstrap_servers):
        raise UsageError("either --bootstrap-servers or --arena says where the events go")
    start_s = time.monotonic()
    if arena is not None:
        result = _into_arena(loaded, files, arena, columns, speed, quiet=quiet)
    else:
        result = _to_kafka(loaded, files, bootstrap_servers, topic, speed, quiet=quiet)
    result["seconds"] = time.monotonic() - start_s
    emit([result], title="Replayed", as_json=as_json, document=result)


def _into_arena(
    schema: Schema, files: list[Path], arena: Path, columns: Path | None, speed: float | None, *, quiet: bool
) -> dict[str, Any]:
    from nowgraph.loading import load_files
    from temporal_graph.graph import TemporalGraph

    with TemporalGraph.create(schema, arena=arena, columns=columns, publish=False) as graph:
        loaded = load_files(graph, files, quiet=quiet, speed=speed)
        graph.publish_generation()
        return {
            "rows": loaded.rows,
            "applied": loaded.applied,
            "duplicate": loaded.duplicate,
            "dead letters": loaded.dead_letters,
            "generation": graph.generation,
            "graph": graph.canonical_hash(),
        }


def _to_kafka(
    schema: Schema, files: list[Path], bootstrap: str, topic: str, speed: float | None, *, quiet: bool
) -> dict[str, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from graph_updater.dead_letter_file import DeadLetterFile
    from nowgraph.assembly import history_source
    from nowgraph.loading import DEAD_LETTERS
    from stream.producer import EventProducer
    from stream.settings import StreamSettings

    stream = StreamSettings(kafka_bootstrap=bootstrap)
    source = history_source(schema, files, stream, speed=speed)
    columns = (TextColumn("publishing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        DeadLetterFile(DEAD_LETTERS) as letters,
        EventProducer(stream) as producer,
        Progress(*columns, console=progress_console(), disable=quiet) as bar,
    ):
        rows = source.lag_records()
        task = bar.add_task("", total=rows)
        last = []
        while not source.exhausted:
            batch = source.poll(_POLL_RECORDS, _POLL_S)
            if batch.decoded is None:
                continue
            letters.append(batch.decoded.dead)
            last = [producer.publish_event(topic, event, hashed=True) for event in batch.decoded.events]
            bar.advance(task, len(batch))
        source.close()
        for future in last:
            future.result(stream.delivery_timeout_s)
        if producer.flush(stream.delivery_timeout_s) or producer.failed:
            raise UsageError(f"Kafka at {bootstrap} did not take {producer.failed or 'all'} records")
        return {"rows": rows, "topic": topic, "published": rows - letters.count, "dead letters": letters.count}
