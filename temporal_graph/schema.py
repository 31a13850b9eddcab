"""The schema: which tables, keys, columns, links and clocks a graph has, and which topics feed them.

schema.yaml ──► parse_schema ─► Schema ─► fingerprint
Parquet, CSV ─► infer_schema ─────┴────► dump_schema ─► schema.yaml
"""

from temporal_graph.schema_dump import dump_schema
from temporal_graph.schema_infer import draft_schema, infer_schema
from temporal_graph.schema_parse import load_schema, parse_schema
from temporal_graph.schema_types import (
    FUTURE_DEFAULT_US,
    Column,
    ColumnKind,
    KeyColumn,
    KeyType,
    KnownTime,
    Link,
    Retention,
    Schema,
    Source,
    Table,
)
from temporal_graph.schema_yaml import fitting_names

__all__ = [
    "FUTURE_DEFAULT_US",
    "Column",
    "ColumnKind",
    "KeyColumn",
    "KeyType",
    "KnownTime",
    "Link",
    "Retention",
    "Schema",
    "Source",
    "Table",
    "draft_schema",
    "dump_schema",
    "fitting_names",
    "infer_schema",
    "load_schema",
    "parse_schema",
]
