"""``nowgraph capacity``: what a graph of so many rows takes, before there is one, and what reads and answers."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

import typer

from nowgraph.commands.options import AsJson, SchemaPath
from nowgraph.errors import UsageError
from nowgraph.report import emit
from temporal_graph.capacity import Counts, GraphBytes, graph_bytes
from temporal_graph.schema import load_schema

# Measured on cores of an AMD EPYC: docs/SCALING.md says how, and how to measure your own.
APPLIED_PER_S: Final = 680_000
"""Records of about a hundred bytes from Kafka into the graph, a second of one core."""
SCORES_PER_S: Final = 1_382
"""Scores a second of one server process at its capacity, by the default plan."""
LOAD_SHARE: Final = 0.5
"""Of its capacity: up to there a server keeps its objective of latency."""
RESTORED_BYTES_PER_S: Final = 1_000_000_000
GENERATIONS: Final = 2
"""While a new generation is built the servers read the old one; a standby always keeps its own."""


def capacity(
    *,
    schema: SchemaPath,
    rows: Annotated[list[str], typer.Option("--rows", help="Rows of a table, such as transactions=2e9; of each.")],
    changes: Annotated[
        list[str] | None, typer.Option("--changes", help="Changes that come later, such as transactions=2e6.")
    ] = None,
    strings: Annotated[
        list[str] | None, typer.Option("--strings", help="Distinct strings of a column: customers.city=10000.")
    ] = None,
    text_bytes: Annotated[int, typer.Option(help="Of a key that is text, and of such a string, on average.")] = 16,
    even: Annotated[
        bool, typer.Option("--even", help="All parents have about as many children; else few busy.")
    ] = False,
    events_per_s: Annotated[float, typer.Option(help="Records that come in.")] = 0.0,
    scores_per_s: Annotated[float, typer.Option(help="Scores that are asked for.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Say how much memory a graph takes, and how many cores read and answer: a model, checked in docs/SCALING.md."""
    counts = Counts(
        _numbers("--rows", rows), _numbers("--changes", changes), _numbers("--strings", strings), text_bytes, even
    )
    found = graph_bytes(load_schema(schema), counts)
    totals = {
        "arena": found.total,
        "host": GENERATIONS * found.total,
        "restore s": round(found.total / RESTORED_BYTES_PER_S, 1),
        "updater cores": round(events_per_s / APPLIED_PER_S, 2),
        "server processes": math.ceil(scores_per_s / (LOAD_SHARE * SCORES_PER_S)),
    }
    if totals["updater cores"] > 1:
        raise UsageError(
            f"--events-per-s {events_per_s:,.0f}: one writer applies some {APPLIED_PER_S:,} a second: docs/SCALING.md"
        )
    title = (
        f"{found.total:,} bytes of arena, {found.idle:,} of them idle; a host needs {totals['host']:,}; "
        f"restored in {totals['restore s']:,} s"
    )
    emit(_rows(found), title=title, as_json=as_json, document={"tables": _rows(found), "idle": found.idle, **totals})
    if not as_json and events_per_s:
        typer.echo(f"{totals['updater cores']:g} of a core to apply {events_per_s:,.0f} events/s")
    if not as_json and scores_per_s:
        typer.echo(f"{totals['server processes']} server processes for {scores_per_s:,.0f} scores/s")


def _rows(found: GraphBytes) -> list[dict[str, Any]]:
    return [
        {
            "table": table.name,
            "rows": table.rows,
            "bytes a record": table.record_bytes,
            "records": table.records,
            "keys": table.keys,
            "lists": table.lists,
            "versions": table.versions,
            "strings": table.strings,
            "on disk": table.disk,
            "bytes a row": round(table.total / table.rows, 1) if table.rows else 0.0,
        }
        for table in found.tables
    ]


def _numbers(option: str, texts: list[str] | None) -> dict[str, int]:
    """Reads ``name=count``; raises UsageError for anything else."""
    found = {}
    for text in texts or []:
        name, _, number = text.partition("=")
        try:
            count = float(number)
        except ValueError:
            count = -1.0
        if not name or not 0 <= count < math.inf:
            raise UsageError(f"{option} {text}: expected a name and a count, such as transactions=2e9")
        found[name] = int(count)
    return found
