"""When the rows of a table were there: from a row's visible time until it was deleted, by the one time rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.ranking.asked import distinct
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

Int64 = NDArray[np.int64]


class Presence:
    """The rows of one table over time. Of a table without time every row is there, named by others only or not."""

    def __init__(self, source: RowSource, table: str) -> None:
        versions = source.versions(table)
        self.timeless = source.schema.table(table).time_column is None
        self._row, self._deleted = versions.row, versions.deleted
        self._times = distinct(versions.valid_from_us)
        self._place = self._placed(versions.row, versions.valid_from_us)
        self.first_us: Int64 = np.full(source.row_count(table), ALWAYS_US if self.timeless else TIME_MAX_US)
        """int64 [rows]: when each row was first visible; TIME_MAX_US for one that never was."""
        shown = ~versions.deleted
        self.always = self.timeless and bool(shown.all())
        """Whether every row is there at every time."""
        np.minimum.at(self.first_us, versions.row[shown], versions.valid_from_us[shown])

    def at(self, row: Int64, time_us: Int64) -> NDArray[np.bool_]:
        """Return which of these rows (int64 [n]) were there at these times (int64 [n], or one that broadcasts)."""
        row, time_us = np.broadcast_arrays(row, time_us)
        if not len(self._row):
            return np.full(row.shape, self.timeless)
        state = np.searchsorted(self._place, self._placed(row, time_us), side="right") - 1
        found = (state >= 0) & (self._row[state] == row)
        return np.where(found, ~self._deleted[state], self.timeless)

    def _placed(self, row: Int64, time_us: Int64) -> Int64:
        """Numbers that order states by row and time."""
        rank = np.searchsorted(self._times, time_us, side="right")
        return row * np.int64(len(self._times) + 1) + rank
