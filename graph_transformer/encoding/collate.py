"""One collate for training and serving: a neighborhood's columns become the batch a model reads.

Neighborhood ─► link paths ─┐
             ─► clock      ─┼─► Batch        no loop over rows: hops, tables and columns only
             ─► cells      ─┘
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.encoding.batch import Batch, TableBatch
from graph_transformer.encoding.cells import CellEncoder
from graph_transformer.encoding.clock import clock, clock_width
from graph_transformer.encoding.paths import PathTable
from graph_transformer.encoding.quantile import Bins
from graph_transformer.encoding.statistics import Statistics, Strings
from temporal_graph.schema import ColumnKind, Schema

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood

STATES = 3
"""What is known of a row's outcome at the cut-off: 0 not known (or none to know), 1 known false, 2 known true."""
WIDTH_STEP = 32
"""Several neighborhoods are padded to a multiple of this, so that few shapes occur."""


@dataclass(frozen=True, slots=True)
class TableLayout:
    """The shapes a model needs for one table: width of the dense cells, entries per categorical column."""

    table: str
    dense_width: int
    category_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The shapes a model needs: link paths (table index and hop of each, OTHER last), clock width, tables."""

    paths: int
    path_hop: tuple[int, ...]
    path_table: tuple[int, ...]
    clock_width: int
    tables: tuple[TableLayout, ...]
    outcome_paths: tuple[int, ...]


class Encoding:
    """Statistics bound to one graph: its schema's positions and its dictionaries. Safe to share between threads."""

    def __init__(self, statistics: Statistics, schema: Schema, strings: Strings) -> None:
        """`strings` is `GraphView.strings` of the graph whose neighborhoods are collated.

        Raises:
            SchemaError: the schema lacks a table or column the statistics name.
        """
        self.statistics, self.schema = statistics, schema
        # A view is not for two threads at once, and training collates in two.
        one_at_a_time = threading.Lock()

        def texts(table: str, column: str, codes: NDArray[np.int32]) -> Sequence[str | None]:
            with one_at_a_time:
                return strings(table, column, codes)

        self.paths = PathTable(statistics.paths, schema)
        self.age_bins = Bins([statistics.age_edges])
        used = statistics.tables()
        self.encoders: dict[str, CellEncoder] = {}
        self.outcome_at: dict[str, int] = {}
        for name in used:
            table = schema.table(name)
            columns = [c for c in statistics.columns if c.table == name]
            hidden = statistics.outcome if name == statistics.seed_table else None
            self.encoders[name] = CellEncoder(table, columns, texts, seed_outcome=hidden)
            booleans = [column.name for column in table.columns if column.kind is ColumnKind.BOOLEAN]
            if table.outcome is not None and table.outcome.name in booleans:
                self.outcome_at[name] = booleans.index(table.outcome.name)

    def layout(self) -> Layout:
        """Return the shapes a model of this encoding has."""
        names = list(self.encoders)
        paths = self.paths.paths
        # OTHER has a table index of its own: its rows may be of any table.
        return Layout(
            paths=len(paths) + 1,
            path_hop=(*(path.hop for path in paths), max(path.hop for path in paths) + 1),
            path_table=(*(names.index(path.table) for path in paths), len(names)),
            clock_width=clock_width(self.age_bins),
            tables=tuple(TableLayout(n, e.dense_width, e.category_sizes) for n, e in self.encoders.items()),
            outcome_paths=tuple(
                sorted(
                    (i for i, path in enumerate(paths) if i > 0 and path.table in self.outcome_at),
                    key=lambda i: -paths[i].share,
                )
            ),
        )


def collate(
    neighborhood: Neighborhood,
    encoding: Encoding,
    *,
    width: int | None = None,
    asked_time_us: NDArray[np.int64] | None = None,
) -> Batch:
    """Return the batch of B neighborhoods of N rows; seeds must be rows of the encoding's seed table.

    `asked_time_us` int64[B] is the time ages are counted from, where the graph was read only up to an earlier cut-off.

    `width` fixes K, the places per neighborhood. Otherwise K is what the largest needs: exactly for one neighborhood or
    equal ones, else up to the next multiple of WIDTH_STEP.

    Raises:
        ValueError: `width` is less than the rows of a neighborhood.
    """
    offset = neighborhood.seed_offset
    counts = np.diff(offset)
    sample = np.repeat(np.arange(len(counts)), counts)
    cutoff = (neighborhood.cutoff_time_us if asked_time_us is None else asked_time_us)[sample]
    features, days = clock(neighborhood.event_time_us, cutoff, encoding.age_bins)
    path = encoding.paths.of_nodes(neighborhood)
    also = encoding.paths.of_edges(neighborhood, path)
    state = np.zeros(len(path), dtype=np.int64)
    tables = []
    for name, encoder in encoding.encoders.items():
        columns = neighborhood.columns.get(name)
        if columns is None or not len(columns.node):
            continue
        node = columns.node
        at_seed = name == encoding.statistics.seed_table
        # Nodes of a table come in rising order, so a seed's place among them is found by search.
        seed = np.searchsorted(node, offset[:-1])[sample[node]] if at_seed else None
        if name in encoding.outcome_at:
            state[node] = (columns.boolean[:, encoding.outcome_at[name]] + np.uint8(1)) % np.uint8(STATES)
        if encoder.dense_width or encoder.category_sizes:
            dense, category = encoder.encode(columns, cutoff[node], seed, neighborhood.unseen)
            tables.append(TableBatch(name, _tensor(node.astype(np.int64)), _tensor(dense), _tensor(category)))
    state[offset[:-1]] = 0
    places, token = _grid(offset, counts, width)
    return Batch(
        size=len(counts),
        width=places,
        path=_tensor(path),
        also=_tensor(also),
        state=_tensor(state),
        clock=_tensor(features),
        age_days=_tensor(days),
        token=None if token is None else _tensor(token),
        tables=tuple(tables),
    )


def _grid(
    offset: NDArray[np.int64], counts: NDArray[np.int64], width: int | None
) -> tuple[int, NDArray[np.int64] | None]:
    """Return (K, token int64[B, K] or None where the rows already are a full grid)."""
    longest = int(counts.max())
    if width is not None and longest > width:
        raise ValueError(f"a neighborhood of {longest} rows does not fit the fixed width {width}")
    if width in (None, longest) and int(counts.min()) == longest:
        return longest, None
    places = width if width is not None else -(-longest // WIDTH_STEP) * WIDTH_STEP
    place = np.arange(places)
    return places, np.where(place < counts[:, None], offset[:-1, None] + place, int(offset[-1]))


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(array)
