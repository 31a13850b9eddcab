"""What is known of the outcomes of rows at the cut-off: nothing, that there is one, or that it is true.

Neighborhood ─► states ─► one of STATES per row
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.fields import NULL_CELLS, field_of
from graph_transformer.encoding.layout import STATES
from temporal_graph.schema import ColumnKind, Schema

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood, TableColumns


@dataclass(frozen=True, slots=True)
class OutcomeCells:
    """Reads what is known of the outcome of rows of a table."""

    field: str
    at: int
    is_boolean: bool

    @property
    def states(self) -> int:
        """How many states there are."""
        return STATES if self.is_boolean else STATES - 1

    def of(self, columns: TableColumns) -> NDArray[np.int64]:
        """Return int64[n]: 0 not known, 1 known (and false, of a boolean), 2 known and true."""
        cells = getattr(columns, self.field)[:, self.at]
        if self.is_boolean:
            state: NDArray[np.int64] = (cells.astype(np.int64) + 1) % STATES
            return state
        null = NULL_CELLS[self.field]
        known: NDArray[np.bool_] = ~np.isnan(cells) if isinstance(null, float) else cells != null
        return known.astype(np.int64)


def outcomes_of(schema: Schema, tables: Iterable[str]) -> dict[str, OutcomeCells]:
    """Return how outcomes are read, for those of the tables that have one; raises SchemaError for an unknown table."""
    found = {}
    for name in tables:
        table = schema.table(name)
        if table.outcome is not None:
            field, where = field_of(table, table.outcome.name)
            is_boolean = table.column(table.outcome.name).kind is ColumnKind.BOOLEAN
            found[name] = OutcomeCells(field, where.start, is_boolean)
    return found


def states(neighborhood: Neighborhood, outcomes: Mapping[str, OutcomeCells]) -> NDArray[np.int64]:
    """Return what is known of each row's outcome, int64[N]; nothing of a seed's."""
    state = np.zeros(len(neighborhood.hop), dtype=np.int64)
    for name, outcome in outcomes.items():
        columns = neighborhood.columns.get(name)
        if columns is not None and len(columns.node):
            state[columns.node] = outcome.of(columns)
    state[neighborhood.seed_offset[:-1]] = 0
    return state
