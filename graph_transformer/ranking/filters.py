"""Which candidates a question's filters keep, by their cells as of its cut-off.

ItemFilter (column, values) ─► Sampler (the items alone) ─► cells ─► bool[n]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.statistics import ELEMENT_SEPARATOR
from graph_transformer.errors import RankQuestionError
from graph_transformer.ranking.lists import ItemFilter
from online_sampler.neighborhood import TableColumns
from online_sampler.plan import ALONE, SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.schema import Column, ColumnKind
from temporal_graph.view import GraphView

Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FILTERED = {
    ColumnKind.CATEGORICAL: str,
    ColumnKind.MULTICATEGORICAL: str,
    ColumnKind.TEXT: str,
    ColumnKind.BOOLEAN: bool,
    ColumnKind.NUMERICAL: float,
}


class Filters:
    """Filters on the items of one graph. One thread at a time."""

    def __init__(self, view: GraphView, table: str) -> None:
        self._view, self._table = view, view.schema.table(table)
        self._columns = {column.name: column for column in self._table.columns}
        self._sampler = Sampler(view, SamplingPlan.from_dict(ALONE))

    def check(self, question: int, filters: Sequence[ItemFilter]) -> None:
        """Raise RankQuestionError for a filter of question number `question` that the table can not answer."""
        for at, each in enumerate(filters):
            column = self._columns.get(each.column)
            if column is None or column.kind not in _FILTERED:
                names = ", ".join(name for name, found in self._columns.items() if found.kind in _FILTERED)
                raise RankQuestionError(question, f"filters[{at}].column", f"one of {names}", each.column)
            expected = _FILTERED[column.kind]
            for value in each.values:
                number = expected is float and isinstance(value, int | float) and not isinstance(value, bool)
                if not number and not isinstance(value, expected):
                    raise RankQuestionError(question, f"filters[{at}].values", expected.__name__, value)

    def keep(self, item: Int64, cutoff_time_us: int, filters: Sequence[ItemFilter]) -> Mask:
        """Return bool[n]: which items int64[n] all the filters keep, as of the cut-off."""
        kept = np.ones(len(item), dtype=bool)
        if not len(item):
            return kept
        cutoff_us = np.full(len(item), cutoff_time_us, dtype=np.int64)
        sample = self._sampler.sample_rows(self._table.name, item, cutoff_us, as_of=True)
        cells = sample.columns[self._table.name]
        for each in filters:
            equal = np.zeros(len(item), dtype=bool)  # a row without cells equals nothing
            equal[cells.node] = self._equal(cells, self._columns[each.column], each.values)
            kept &= equal != each.negate
        return kept

    def _equal(self, cells: TableColumns, column: Column, values: Sequence[str | float | bool]) -> Mask:
        name = column.name
        if column.kind is ColumnKind.NUMERICAL:
            number = cells.numerical[:, cells.numerical_names.index(name)]
            return np.isin(number, np.array([float(value) for value in values]))
        if column.kind is ColumnKind.BOOLEAN:
            flag = cells.boolean[:, cells.boolean_names.index(name)]
            return np.isin(flag, np.array([int(bool(value)) for value in values]))
        code, place = np.unique(cells.coded[:, cells.coded_names.index(name)], return_inverse=True)
        several, wanted = column.kind is ColumnKind.MULTICATEGORICAL, set(values)
        found = [
            text is not None and bool(wanted.intersection(text.split(ELEMENT_SEPARATOR) if several else (text,)))
            for text in self._view.strings(self._table.name, name, code)
        ]
        equal: Mask = np.array(found, dtype=bool)[place]
        return equal
