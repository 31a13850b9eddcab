"""Where the cells of a column lie among the arrays of a neighborhood's table, and what null is there."""

from __future__ import annotations

import numpy as np

from temporal_graph.schema import ColumnKind, Table
from temporal_graph.time_rule import ALWAYS_US

BOOLEAN_NULL = 2
CODED = (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL, ColumnKind.TEXT)
NULL_CELLS = {"numerical": np.nan, "coded": 0, "boolean": BOOLEAN_NULL, "timestamp": ALWAYS_US, "embedding": np.nan}


def field_of(table: Table, column: str) -> tuple[str, slice]:
    """Return which array of `TableColumns` holds a column, and where."""
    kind = table.column(column).kind
    if kind is ColumnKind.EMBEDDING:
        before = [c.dim for c in table.columns if c.kind is kind]
        start = sum(before[: [c.name for c in table.columns if c.kind is kind].index(column)])
        return "embedding", slice(start, start + table.column(column).dim)
    kinds = CODED if kind in CODED else (kind,)
    at = [c.name for c in table.columns if c.kind in kinds].index(column)
    return ("coded" if kind in CODED else kind.value), slice(at, at + 1)
