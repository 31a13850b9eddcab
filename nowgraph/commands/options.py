"""The options that several commands share, each with one name, one type and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
SchemaPath = Annotated[Path, typer.Option("--schema", help="The schema of tables, links and topics (YAML).")]
ArenaPath = Annotated[
    Path | None, typer.Option("--arena", help="Folder of the live graph, shared by updater and servers.")
]
ColumnsPath = Annotated[
    Path | None,
    typer.Option("--columns", help="Folder on a local disk for the columns of tables whose storage is disk."),
]
ColumnsBytes = Annotated[int, typer.Option(help="Size of their file: sparse, blocks as they are used.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store", envvar="NOWGRAPH_STORE", help="In place of an arena a Redis or Redis Cluster: redis://host:port."
    ),
]
Bootstrap = Annotated[
    str, typer.Option("--bootstrap-servers", envvar="KAFKA_BOOTSTRAP", help="Kafka, as host:port[,host:port].")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
CheckpointPath = Annotated[Path, typer.Option("--checkpoint", help="Folder that `nowgraph train` made.")]
CheckpointSchemaPath = Annotated[
    Path | None, typer.Option("--schema", help="The schema (YAML); default: schema.yaml of the checkpoint.")
]
History = Annotated[
    list[Path] | None,
    typer.Option("--history", help="Parquet, CSV or JSONL to load, named as its topic or table; or a folder."),
]
SnapshotsUrl = Annotated[
    str | None,
    typer.Option(
        "--snapshots", help="Where snapshots are kept, a folder or a URL: a start goes on from the newest good one."
    ),
]
SnapshotEvery = Annotated[
    str | None,
    typer.Option(
        "--snapshot-every", help="Such as 5m, or never; default: NOWGRAPH_UPDATER_SNAPSHOT_INTERVAL_S, five minutes."
    ),
]
FixedShape = Annotated[
    bool, typer.Option("--fixed-shape", help="Each row alone, on one thread: equal inputs give the same bits.")
]
Device = Annotated[str, typer.Option("--device", help="Where the model computes: cpu, cuda or cuda:N.")]
TaskPath = Annotated[
    Path | None, typer.Option("--task", help="What is asked, on which times, perhaps with a plan (YAML).")
]
QueryText = Annotated[
    str | None, typer.Option("--query", help="A predictive query, or a file that holds one, instead of a task.")
]
LabelFolder = Annotated[
    Path | None, typer.Option("--labels", help="Folder of the label files a task names; default: beside the task.")
]
