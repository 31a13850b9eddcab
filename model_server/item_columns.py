"""The categories of ranked items, as they stood at a list's cut-off: what rules about variety and caps look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_server.row_check import ELEMENT_SEPARATOR
from online_sampler.plan import ALONE, SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.schema import ColumnKind
from temporal_graph.view import GraphView

Categories = frozenset[str]

# An item alone: its cells are read, its neighbors are not.
_NONE: Categories = frozenset()


class ItemColumns:
    """Reads cells of the items' table through the sampler, and so by the same time rule. For one thread at a time."""

    def __init__(self, view: GraphView, table: str) -> None:
        self._view = view
        self._table = view.schema.table(table)
        self._sampler = Sampler(view, SamplingPlan.from_dict(ALONE))

    def categories(self, column: str, item: NDArray[np.int64], cutoff_time_us: int) -> list[Categories]:
        """The categories of each item int64[n] in a categorical or multicategorical column; none where it is null.

        Raises SchemaError for a column that the table does not have.
        """
        kind = self._table.column(column).kind
        found: list[Categories] = [_NONE] * len(item)
        if not len(item):
            return found
        cutoffs = np.full(len(item), cutoff_time_us, dtype=np.int64)
        sampled = self._sampler.sample_rows(self._table.name, item, cutoffs, as_of=True)
        columns = sampled.columns[self._table.name]
        codes = columns.coded[:, columns.coded_names.index(column)]
        texts = self._view.strings(self._table.name, column, codes)
        for node, text in zip(columns.node.tolist(), texts, strict=True):
            if text is None:
                continue
            several = kind is ColumnKind.MULTICATEGORICAL
            found[node] = frozenset(text.split(ELEMENT_SEPARATOR) if several and text else () if several else (text,))
        return found
