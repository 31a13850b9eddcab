"""The cells of one table's rows as numbers, by kind of column; null is a value of its own everywhere.

Cells ─► dense float32[n, F] (numbers, booleans, timestamps, text, bags, embeddings, difference to the seed)
      └► category int64[n, C] (one index per categorical column, for the model's embedding tables)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.clock import CALENDAR_WIDTH, calendar, log_age
from graph_transformer.encoding.codes import TEXT_BUCKETS, CategoryIndex, CodeVectors, bag_vectors, ngram_vectors
from graph_transformer.encoding.fields import CODED, NULL_CELLS, field_of
from graph_transformer.encoding.layout import TableLayout
from graph_transformer.encoding.quantile import BINS, Bins, signed_log
from graph_transformer.encoding.statistics import ColumnStatistics, Strings, sentence_encoder
from temporal_graph.schema import ColumnKind, Table
from temporal_graph.time_rule import ALWAYS_US

if TYPE_CHECKING:
    from online_sampler.neighborhood import TableColumns

Floats = NDArray[np.float32]
_ONE_HOT = np.eye(3, dtype=np.float32)


class Cells(NamedTuple):
    """The raw cells of n rows: shapes, dtypes and nulls of `TableColumns`, and each row's cut-off int64[n].

    `unseen` are the strings of negative codes, as in `Neighborhood`.
    """

    numerical: NDArray[np.float64]
    coded: NDArray[np.int32]
    boolean: NDArray[np.uint8]
    timestamp: NDArray[np.int64]
    embedding: Floats
    cutoff_time_us: NDArray[np.int64]
    unseen: Sequence[str]


Writer = Callable[[Cells, Floats], None]


class CellEncoder:
    """Encodes the rows of one table; `dense_width` and `category_sizes` give the shapes to the model."""

    def __init__(
        self, table: Table, statistics: list[ColumnStatistics], strings: Strings, *, seed_outcome: str | None = None
    ) -> None:
        """`seed_outcome` for the seeds' own table: the column no seed may show. Seeds are then compared with rows."""
        self.table = table
        by_kind = {kind: [c for c in statistics if c.kind == kind] for kind in ColumnKind}
        self._writers: list[tuple[int, Writer]] = []
        self._spans: list[tuple[int, ...]] = []
        numbers = by_kind[ColumnKind.NUMERICAL]
        self._numerical(numbers)
        self._boolean(by_kind[ColumnKind.BOOLEAN])
        for column in by_kind[ColumnKind.TIMESTAMP]:
            self._timestamp(column)
        for column in by_kind[ColumnKind.EMBEDDING]:
            self._embedding(column)
        for column in (*by_kind[ColumnKind.TEXT], *by_kind[ColumnKind.MULTICATEGORICAL]):
            self._vectors(column, strings)
        categorical = by_kind[ColumnKind.CATEGORICAL]
        self._categories = [CategoryIndex(c.table, c.column, c.values, strings) for c in categorical]
        self._category_at = self._positions(categorical, *CODED)
        self._pairs = len(numbers) if seed_outcome is not None else 0
        start = sum(width for width, _ in self._writers)
        self.dense_width = start + 2 * self._pairs
        for at in range(self._pairs):  # numbers come first
            self._spans[at] += (start + at, start + self._pairs + at)
        self.category_sizes = tuple(index.size for index in self._categories)
        self._hidden = None if seed_outcome is None else field_of(table, seed_outcome)

    def layout(self) -> TableLayout:
        """Return the shapes the model needs."""
        return TableLayout(self.table.name, self.dense_width, self.category_sizes, tuple(self._spans))

    def encode(
        self,
        columns: TableColumns,
        cutoff_time_us: NDArray[np.int64],
        seed: NDArray[np.int64] | None,
        unseen: Sequence[str] = (),
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return (dense float32[n, F], category int64[n, C]) of a table's n rows, each seen at its cut-off int64[n].

        `seed` int64[n], for the seeds' own table, is the position among the n rows of each row's own seed. `unseen` is
        `Neighborhood.unseen`.
        """
        cells = Cells(
            columns.numerical,
            columns.coded,
            columns.boolean,
            columns.timestamp,
            columns.embedding,
            cutoff_time_us,
            unseen,
        )
        if self._hidden is not None and seed is not None:
            cells = _hide(cells, *self._hidden, seed)
        dense = np.empty((len(cutoff_time_us), self.dense_width), dtype=np.float32)
        start = 0
        for width, write in self._writers:
            write(cells, dense[:, start : start + width])
            start += width
        if self._pairs:
            if seed is None:
                raise ValueError(f"{self.table.name}: rows are compared with their seed, which is not given")
            self._compare(dense, seed, dense[:, start:])
        category = np.empty((len(dense), len(self._categories)), dtype=np.int64)
        for column, (index, at) in enumerate(zip(self._categories, self._category_at, strict=True)):
            category[:, column] = index.of(cells.coded[:, at], unseen)
        return dense, category

    def _compare(self, dense: Floats, seed: NDArray[np.int64], out: Floats) -> None:
        """Write seed minus row, and its size, per number; zero where one is null. `dense` has numbers, then nulls."""
        count = self._pairs
        numbers, null = dense[:, :count], dense[:, count : 2 * count]
        difference = numbers[seed] - numbers
        if null.any():
            difference[(null + null[seed]) > 0] = 0.0
        out[:, :count] = difference
        np.abs(difference, out=out[:, count:])

    def _positions(self, statistics: list[ColumnStatistics], *kinds: ColumnKind) -> list[int]:
        """Return where each column lies among the table's columns of these kinds, in the schema's order."""
        names = [column.name for column in self.table.columns if column.kind in kinds]
        return [names.index(column.column) for column in statistics]

    def _add(self, width: int, write: Writer, columns: Sequence[Sequence[int]] | None = None) -> None:
        """Append a writer of `width` dense cells; `columns` are their positions per column, all of one by default."""
        start = sum(before for before, _ in self._writers)
        self._spans += [tuple(start + at for at in column) for column in columns or [range(width)]]
        self._writers.append((width, write))

    def _numerical(self, statistics: list[ColumnStatistics]) -> None:
        if not statistics:
            return
        at, count = self._positions(statistics, ColumnKind.NUMERICAL), len(statistics)
        mean, scale = np.array([c.mean for c in statistics]), 1.0 / np.array([c.std for c in statistics])
        bins = Bins([c.edges for c in statistics])

        def write(cells: Cells, out: Floats) -> None:
            raw = cells.numerical if cells.numerical.shape[1] == count else cells.numerical[:, at]
            values = signed_log(raw)
            out[:, :count] = (values - mean) * scale
            null = np.isnan(raw)
            out[:, count : 2 * count] = null
            bins.encode(values, out[:, 2 * count :].reshape(len(raw), count, BINS))
            if null.any():
                np.nan_to_num(out, copy=False, nan=0.0)

        self._add(
            count * (2 + BINS),
            write,
            [(c, count + c, *range(2 * count + c * BINS, 2 * count + (c + 1) * BINS)) for c in range(count)],
        )

    def _boolean(self, statistics: list[ColumnStatistics]) -> None:
        at = self._positions(statistics, ColumnKind.BOOLEAN)
        if not at:
            return

        def write(cells: Cells, out: Floats) -> None:
            out[...] = _ONE_HOT[cells.boolean[:, at]].reshape(len(out), -1)

        self._add(3 * len(at), write, [range(3 * c, 3 * c + 3) for c in range(len(at))])

    def _timestamp(self, statistics: ColumnStatistics) -> None:
        (at,) = self._positions([statistics], ColumnKind.TIMESTAMP)
        bins = Bins([statistics.edges])

        def write(cells: Cells, out: Floats) -> None:
            values = cells.timestamp[:, at]
            null = values == ALWAYS_US
            known = np.where(null, cells.cutoff_time_us, values)
            age = log_age(cells.cutoff_time_us - known)
            out[:, 0], out[:, 1] = null, age
            bins.encode(age[:, None], out[:, 2 : 2 + BINS][:, None, :])
            calendar(known, out[:, 2 + BINS :])
            out[null, 1:] = 0.0

        self._add(2 + BINS + CALENDAR_WIDTH, write)

    def _embedding(self, statistics: ColumnStatistics) -> None:
        _, where = field_of(self.table, statistics.column)

        def write(cells: Cells, out: Floats) -> None:
            out[:, 1:] = cells.embedding[:, where]
            null = np.isnan(out[:, 1:]).any(axis=1)
            out[:, 0] = null
            out[null, 1:] = 0.0

        self._add(1 + where.stop - where.start, write)

    def _vectors(self, statistics: ColumnStatistics, strings: Strings) -> None:
        if statistics.kind == ColumnKind.MULTICATEGORICAL:
            width, read = len(statistics.values) + 1, bag_vectors(statistics.values)
        elif statistics.encoder:
            width, read = statistics.dim, sentence_encoder(statistics.encoder)
        else:
            width, read = TEXT_BUCKETS, ngram_vectors
        vectors = CodeVectors(statistics.table, statistics.column, strings, width, read)
        (at,) = self._positions([statistics], *CODED)

        def write(cells: Cells, out: Floats) -> None:
            codes = cells.coded[:, at]
            out[:, 0] = codes == 0
            out[:, 1:] = vectors.of(codes, cells.unseen)

        self._add(1 + vectors.width, write)


def _hide(cells: Cells, field: str, where: slice, seed: NDArray[np.int64]) -> Cells:
    """Return the cells with one column null for every seed: the sampler hides it too; a leak here would be silent."""
    values = getattr(cells, field).copy()
    values[seed, where] = NULL_CELLS[field]
    return cells._replace(**{field: values})
