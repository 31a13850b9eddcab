"""``nowgraph schema``: draft a schema from files, check one, show one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nowgraph.commands.options import AsJson
from nowgraph.errors import UsageError
from nowgraph.report import emit, emit_json
from temporal_graph.duration import format_duration
from temporal_graph.schema import Schema, Table, draft_schema, load_schema

app = typer.Typer(no_args_is_help=True, help="Draft, check and show schemas.")

_File = Annotated[Path, typer.Argument(help="A schema file (YAML).")]


@app.command()
def infer(
    files: Annotated[list[Path], typer.Argument(help="Parquet, CSV or JSONL files, one a table; or a folder.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here instead of printing.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draft a schema from Parquet, CSV or JSONL files, to be read and corrected by a person."""
    from nowgraph.assembly import files_of

    schema, text = draft_schema(files_of(files))
    if output is not None:
        if output.exists():
            raise UsageError(f"{output}: exists already, and a draft overwrites nothing")
        output.write_text(text, encoding="utf-8")
    if as_json:
        emit_json(_document(schema) | {"yaml": text, "output": output})
    elif output is None:
        typer.echo(text, nl=False)
    else:
        emit(_rows(schema), title=f"Drafted {output}: its comments say what to look at", as_json=False)


@app.command()
def check(file: _File, as_json: AsJson = False) -> None:
    """Check a schema; the error names the place, what is expected there and what was found."""
    schema = load_schema(file)
    result = {
        "schema": schema.name,
        "tables": len(schema.tables),
        "links": len(schema.links),
        "sources": len(schema.sources),
        "fingerprint": schema.fingerprint(),
    }
    emit([result], title=f"{file} is a valid schema", as_json=as_json, document=result)


@app.command()
def show(file: _File, as_json: AsJson = False) -> None:
    """Show a schema's tables, columns, links and topics."""
    schema = load_schema(file)
    if as_json:
        emit_json(_document(schema))
        return
    emit(_rows(schema), title=f"Schema {schema.name}", as_json=False)
    emit(_link_rows(schema), title="Links, as sampling plans name them", as_json=False)
    emit(_source_rows(schema), title="Topics", as_json=False)


def _document(schema: Schema) -> dict[str, Any]:
    return {
        "schema": schema.name,
        "fingerprint": schema.fingerprint(),
        "tables": _rows(schema),
        "links": _link_rows(schema),
        "sources": _source_rows(schema),
    }


def _rows(schema: Schema) -> list[dict[str, Any]]:
    return [
        {
            "table": table.name,
            "key": ", ".join(f"{part.name} {part.type.value}" for part in table.primary_key) or "source position",
            "time": table.time_column,
            "known time": _known_time(table),
            "columns": ", ".join(f"{column.name} {column.kind.value}" for column in table.columns) or None,
            "outcome": table.outcome.name if table.outcome is not None else None,
            "private": ", ".join(sorted(table.private_keys | {c.name for c in table.columns if c.private})) or None,
            "kept": _kept(table),
        }
        for table in schema.tables
    ]


def _known_time(table: Table) -> str | None:
    if table.time_column is None:
        return None
    return table.known_time.column or table.known_time.kind.replace("_", " ")


def _kept(table: Table) -> str:
    age, degree = table.retention.age_us, table.retention.degree
    limits = [format_duration(age)] if age is not None else []
    limits += [f"{degree} a parent"] if degree is not None else []
    return ", ".join(limits) or "all"


def _link_rows(schema: Schema) -> list[dict[str, Any]]:
    return [{"to the parent": link.forward, "to the children": link.backward} for link in schema.links]


def _source_rows(schema: Schema) -> list[dict[str, Any]]:
    return [
        {"topic": source.topic, "table": source.table, "format": source.format, "operation": source.operation}
        for source in schema.sources
    ]
