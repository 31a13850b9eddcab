"""How a row's own numbers compare with those of the rows of its table that its link paths lead to.

    numbers of the seed ─┐   ┌─► its logarithm less that of their mean, and less that of their largest
    rows of a path ──────┴───┼─► how many standard deviations it lies from their mean, halved
                             ├─► how many of them are below, against how many are above ─► float32[B, W]
                             └─► whether there are any

That a payment is five times what its customer pays is one number here; attention has to make it out of all rows.
Everything is of the sampled neighborhood and the time asked about alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.fields import field_of
from graph_transformer.encoding.paths import nearest
from graph_transformer.encoding.quantile import signed_log
from graph_transformer.encoding.tallies import NUMBERS_MAX, PATHS_MAX, Read, counted
from temporal_graph.schema import ColumnKind, Schema

if TYPE_CHECKING:
    from graph_transformer.encoding.statistics import Statistics
    from online_sampler.neighborhood import Neighborhood

VALUES = 5
"""Values per path and column."""
DEVIATION_LEAST = 0.1
"""Of the mean: rows that are all alike make nothing infinitely far."""
FARTHEST = 5.0
"""Values are cut here: ten standard deviations, or five of the column's own in logarithms."""
TINY = 1e-9
"""Zeros are divided by this, not by zero."""
LARGEST = 1e100
"""Numbers are cut here, so that their squares have sums."""
Floats = NDArray[np.float64]


class Comparisons:
    """Comparisons of neighborhoods of one schema; the same for a seed in any company, bit for bit."""

    def __init__(self, statistics: Statistics, schema: Schema) -> None:
        table, paths = statistics.seed_table, statistics.paths
        self._table = table
        numbers = [
            c
            for c in statistics.columns
            if (c.table, c.kind) == (table, ColumnKind.NUMERICAL) and c.column != statistics.outcome
        ][:NUMBERS_MAX]
        self._at = [field_of(schema.table(table), c.column)[1].start for c in numbers]
        self._scale = np.array([1.0 / c.std for c in numbers])
        back = (at for at, path in enumerate(paths) if path.hop and path.table == table)
        compared = nearest(paths, back, PATHS_MAX)
        self._paths = len(compared)
        self._place = np.full(len(paths) + 1, -1)  # the last is OTHER
        self._place[compared] = np.arange(self._paths)

    @property
    def width(self) -> int:
        """W; 0 where the table has no numbers, or no path leads back to it."""
        return VALUES * self._paths * len(self._at)

    def of(self, neighborhood: Neighborhood, read: Read) -> NDArray[np.float32]:
        """Return float32[B, W], all 0 for a column that is null in the seed or in all rows of a path."""
        size, columns = len(neighborhood.seed_offset) - 1, len(self._at)
        held = neighborhood.columns[self._table]
        numbers = np.clip(held.numerical[:, self._at], -LARGEST, LARGEST)
        row, at = counted(neighborhood, read, self._place)
        sample = read.sample[row]
        own = numbers[np.searchsorted(held.node, neighborhood.seed_offset[:-1])]
        number = numbers[np.searchsorted(held.node, row)]
        higher = own[sample] - number
        known = np.isfinite(higher)
        higher[~known] = 0.0
        cell = ((sample * self._paths + at)[:, None] * columns + np.arange(columns)).ravel()
        shape = (size, self._paths, columns)

        def total(of_rows: NDArray[np.generic]) -> Floats:
            found = np.bincount(cell, of_rows.ravel(), math.prod(shape))
            return found.reshape(shape).astype(np.float64, copy=False)

        count = total(known)
        compared = count > 0
        some, own = np.maximum(count, 1.0), np.where(np.isnan(own), 0.0, own)[:, None]
        far = total(higher) / some
        deviation = np.sqrt(np.maximum(total(higher * higher) / some - far * far, 0.0))
        mean, largest = own - far, np.full(math.prod(shape), -np.inf)
        np.maximum.at(largest, cell, np.where(known, number, -np.inf).ravel())
        log = signed_log(own)
        out = np.empty((*shape, VALUES))
        out[..., 0] = (log - signed_log(mean)) * self._scale
        out[..., 1] = far / (2.0 * (deviation + DEVIATION_LEAST * np.abs(mean) + TINY))
        out[..., 2] = (log - signed_log(np.where(compared, largest.reshape(shape), 0.0))) * self._scale
        out[..., 3] = total(np.sign(higher)) / (count + 1.0)
        out[..., 4] = 1.0
        np.clip(out, -FARTHEST, FARTHEST, out=out)
        out[~compared] = 0.0
        return out.reshape(size, self.width).astype(np.float32)
