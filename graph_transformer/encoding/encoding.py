"""Statistics bound to one graph: its schema's positions and its dictionaries; what `collate` applies.

Statistics, Schema, strings ─► Encoding ─► Layout (the model's shapes)
                                       └► collate
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.cells import CellEncoder
from graph_transformer.encoding.clock import CALENDAR_WIDTH, clock_width
from graph_transformer.encoding.comparisons import Comparisons
from graph_transformer.encoding.layout import AGE_STEPS, STATES, Layout, LinkLayout, PathLayout
from graph_transformer.encoding.outcomes import outcomes_of
from graph_transformer.encoding.paths import PathTable
from graph_transformer.encoding.quantile import Bins
from graph_transformer.encoding.statistics import Statistics, Strings
from graph_transformer.encoding.structure import EdgeTypes
from graph_transformer.encoding.tallies import Tallies
from temporal_graph.schema import Schema


class Encoding:
    """Statistics bound to one graph: its schema's positions and its dictionaries. Safe to share between threads."""

    def __init__(
        self, statistics: Statistics, schema: Schema, strings: Strings, *, identified: str | None = None
    ) -> None:
        """`strings` is `GraphView.strings` of the graph whose neighborhoods are collated.

        `identified` names a table whose rows have something to tell even without cells: who they are.

        Raises:
            SchemaError: the schema lacks a table or column the statistics name.
        """
        self.statistics, self.schema, self.identified = statistics, schema, identified
        # A view is not for two threads at once, and training collates in two.
        one_at_a_time = threading.Lock()

        def texts(table: str, column: str, codes: NDArray[np.int32]) -> Sequence[str | None]:
            with one_at_a_time:
                return strings(table, column, codes)

        self.paths = PathTable(statistics.paths, schema)
        self.age_bins = Bins([statistics.age_edges])
        self.age_ends = (statistics.age_edges[0], statistics.age_edges[-1])
        self.encoders: dict[str, CellEncoder] = {}
        self.outcomes = outcomes_of(schema, statistics.tables())
        for name in statistics.tables():
            table = schema.table(name)
            columns = [c for c in statistics.columns if c.table == name]
            hidden = statistics.outcome if name == statistics.seed_table else None
            self.encoders[name] = CellEncoder(table, columns, texts, seed_outcome=hidden)
        self._names = list(self.encoders)
        known = {name: position for position, name in enumerate(self._names)}
        self.table_at = np.array([known.get(table.name, len(known)) for table in schema.tables], dtype=np.int64)
        self._links = _links(statistics, schema, known)
        at = {link.name: position for position, link in enumerate(self._links)}
        both = [at.get(name, -1) for link in schema.links for name in (link.forward, link.forward)]
        self.edge_types = EdgeTypes(np.array(both, dtype=np.int64), np.arange(len(both)) % 2 == 0, len(at))
        self._paths = self._path_layouts()
        forward = {link.name for link in self._links}
        self.is_token = np.array([p.hop < 2 or p.links[-1] not in forward for p in self.paths.paths] + [True])
        self.slots, self.slots_count = self._slots()
        self.tallies = Tallies(statistics.tallies, statistics.paths, schema) if statistics.tallies else None
        compared = Comparisons(statistics, schema) if statistics.comparisons else None
        self.comparisons = compared if compared is not None and compared.width else None

    def over(self, strings: Strings) -> Encoding:
        """Return the same for another graph of this schema: its strings have other codes."""
        return Encoding(self.statistics, self.schema, strings, identified=self.identified)

    def layout(self) -> Layout:
        """Return the shapes a model of this encoding has."""
        return Layout(
            paths=self._paths,
            tables=tuple(encoder.layout() for encoder in self.encoders.values()),
            links=self._links,
            folded=self._folded(),
            clock_width=clock_width(self.age_bins),
            seed_width=CALENDAR_WIDTH + 1,
            counts_width=(self.slots_count - 1) * AGE_STEPS,
            tallies_width=0 if self.tallies is None else self.tallies.width,
            comparisons_width=0 if self.comparisons is None else self.comparisons.width,
        )

    def _path_layouts(self) -> tuple[PathLayout, ...]:
        paths = self.paths.paths
        layouts = []
        for path in paths:
            timed = self.schema.table(path.table).time_column is not None
            states = self.outcomes[path.table].states if path.table in self.outcomes else 1
            layouts.append(PathLayout(path.hop, self._names.index(path.table), path.share, timed, states))
        # OTHER has a table of its own: its rows may be of any.
        return (*layouts, PathLayout(max(path.hop for path in paths) + 1, len(self._names)))

    def _slots(self) -> tuple[NDArray[np.int64], int]:
        """Return where rows of a path and state are counted, int64[paths * STATES], and how many places there are.

        A path whose rows have no outcome has one place for all states; seeds have the last, which no one reads.
        """
        slots = np.zeros((len(self._paths), STATES), dtype=np.int64)
        count = 0
        for position, path in enumerate(self._paths[1:], start=1):
            slots[position] = count + np.arange(STATES) % path.states
            count += path.states
        slots[0] = count
        return slots.reshape(-1), count + 1

    def _folded(self) -> tuple[int, ...]:
        """Return the links whose parents have anything to tell, those of a link's parent before the link itself.

        Where tables point at each other in a circle, the order within the circle is that of the schema.
        """
        tells: dict[int, bool] = {}
        order: list[int] = []

        def visit(table: int) -> bool:
            if table not in tells:
                encoder = self.encoders[self._names[table]]
                has_cells = bool(encoder.dense_width or encoder.category_sizes)
                is_event = encoder.table.time_column is not None
                tells[table] = has_cells or is_event or encoder.table.name == self.identified
                for position, link in enumerate(self._links):
                    if link.child == table and visit(link.parent):
                        tells[table] = True
                        order.append(position)
            return tells[table]

        for table in range(len(self._names)):
            visit(table)
        return tuple(order)


def _links(statistics: Statistics, schema: Schema, known: dict[str, int]) -> tuple[LinkLayout, ...]:
    """Return the links that training neighborhoods followed, in the schema's order."""
    used = {name for path in statistics.paths for name in path.links}
    return tuple(
        LinkLayout(link.forward, known[link.child], known[link.parent])
        for link in schema.links
        if (link.forward in used or link.backward in used) and link.child in known and link.parent in known
    )
