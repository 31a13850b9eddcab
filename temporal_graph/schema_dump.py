"""A Schema written as YAML that parses back to the same Schema."""

from __future__ import annotations

from typing import Any

import yaml

from temporal_graph.duration import format_duration
from temporal_graph.schema_types import FUTURE_DEFAULT_US, Column, ColumnKind, KnownTime, Link, Schema, Source, Table


class _Flow(dict[str, Any]):
    """A mapping written on one line."""


class _FlowList(list[Any]):
    """A list written on one line."""


class _Dumper(yaml.SafeDumper):
    """The safe dumper with one-line leaves and indented lists."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


_Dumper.add_representer(_Flow, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, True))
_Dumper.add_representer(_FlowList, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, True))


def dump_schema(schema: Schema) -> str:
    """Return the schema as YAML text without what is at its default; `parse_schema` reads back an equal schema."""
    document: dict[str, Any] = {
        "version": 1,
        "name": schema.name,
        "tables": {table.name: _table(table) for table in schema.tables},
    }
    if schema.sources:
        document["sources"] = [_source(source) for source in schema.sources]
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=120)


def _table(table: Table) -> dict[str, Any]:
    retention = _Flow()
    if table.retention.age_us is not None:
        retention["age"] = format_duration(table.retention.age_us)
    if table.retention.degree is not None:
        retention["degree"] = table.retention.degree
    entries: dict[str, Any] = {
        "primary_key": _Flow({part.name: part.type.value for part in table.primary_key}),
        "time_column": table.time_column,
        "known_time": _known_time(table.known_time),
        "lateness": None if table.lateness_us is None else format_duration(table.lateness_us),
        "future": None if table.future_us == FUTURE_DEFAULT_US else format_duration(table.future_us),
        "retention": retention,
        "storage": "disk" if table.storage == "disk" else None,
        "columns": {column.name: _column(column) for column in table.columns},
        "links": dict(_link(link) for link in table.links),
        "private": _FlowList(sorted(table.private_keys)),
    }
    return {key: value for key, value in entries.items() if value is not None and value not in ({}, [])}


def _known_time(known_time: KnownTime) -> str | _Flow | None:
    if known_time.kind == "column":
        return _Flow(column=known_time.column)
    return "broker" if known_time.kind == "broker" else None


def _column(column: Column) -> str | _Flow:
    if column.kind is not ColumnKind.EMBEDDING and not column.outcome and not column.private:
        return column.kind.value
    entries = _Flow(kind=column.kind.value)
    if column.kind is ColumnKind.EMBEDDING:
        entries["dim"] = column.dim
    if column.outcome:
        entries["outcome"] = True
    if column.private:
        entries["private"] = True
    return entries


def _link(link: Link) -> tuple[str, str | _Flow]:
    if len(link.columns) == 1 and not link.erases:
        return link.name, link.parent
    entries = _Flow(table=link.parent)
    if len(link.columns) > 1:
        entries["columns"] = _FlowList(link.columns)
    if link.erases:
        entries["erase"] = True
    return link.name, entries


def _source(source: Source) -> _Flow:
    entries = _Flow(topic=source.topic, table=source.table, format=source.format, operation=source.operation)
    if source.event_time is not None:
        entries["event_time"] = source.event_time
    if source.known_time is not None:
        entries["known_time"] = source.known_time
    return entries
