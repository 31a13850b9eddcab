"""A table as it was at every moment: the states of its rows, each with its validity; and how rows arrived."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
ChangeMark = tuple[int, int, int, int]
"""Up to where the changes of a table were told, by one generation; what the numbers are is the graph's affair."""


@dataclass(frozen=True, slots=True)
class TableVersions:
    """Every state of every row, by row and time: N entries, one for each distinct visible time of a row's versions.

    An entry is what a question sees whose cut-off lies in [valid_from_us, valid_to_us). Rows known by a foreign key
    alone have no state and are left out (`GraphView.row_count` counts them), as are rows that retention dropped.
    Columns of one kind stand side by side in the schema's order, as in a neighborhood's `TableColumns`. A deleted row
    shows nothing: its cells are null, its parents -1.
    """

    table: str
    row: Int64
    """int64 [N], ascending."""
    event_time_us: Int64
    """int64 [N]: of the row's first version that is visible from then on; ALWAYS_US for rows without time."""
    valid_from_us: Int64
    """int64 [N]: the visible time from which on this holds; ALWAYS_US for rows without time."""
    valid_to_us: Int64
    """int64 [N]: the next state's valid_from_us; TIME_MAX_US for the last, which still holds."""
    deleted: NDArray[np.bool_]
    """bool [N]."""
    parents: Int64
    """int64 [N, links]: the parent's row of each link, -1 for null. A parent that is itself deleted is still named."""
    numerical: NDArray[np.float64]
    """float64 [N, numerical columns], NaN is null."""
    coded: NDArray[np.int32]
    """int32 [N, categorical, multicategorical and text columns]: codes of the column's dictionary, 0 is null."""
    boolean: NDArray[np.uint8]
    """uint8 [N, boolean columns]: 0, 1, and 2 for null."""
    timestamp: Int64
    """int64 [N, timestamp columns] in microseconds, -2**63 is null."""
    embedding: NDArray[np.float32]
    """float32 [N, sum of dimensions]: embedding columns side by side, NaN is null."""
    numerical_names: tuple[str, ...]
    coded_names: tuple[str, ...]
    boolean_names: tuple[str, ...]
    timestamp_names: tuple[str, ...]
    embedding_names: tuple[str, ...]
    link_names: tuple[str, ...]

    def __len__(self) -> int:
        """The number of states."""
        return len(self.row)


@dataclass(frozen=True, slots=True)
class RowTail:
    """How n rows arrived: the first version of each in the graph's order, whatever the cut-off.

    A bare row (known by a foreign key alone, or dropped by retention) has no version: both its times are ALWAYS_US, its
    parents -1, and `bare` says so. In a table with time it is not there before it is inserted, so it is not to be taken
    for one that always was; ask `GraphView.rows_at` again later.
    """

    table: str
    row: Int64
    """int64 [n], ascending of `rows_from`."""
    event_time_us: Int64
    """int64 [n]; ALWAYS_US for rows without time and bare ones."""
    visible_time_us: Int64
    """int64 [n]: the later of the first version's two clocks; ALWAYS_US for rows without time and bare ones."""
    parents: Int64
    """int64 [n, links]: the parent's row of each link as the row arrived, -1 for null."""
    bare: NDArray[np.bool_]
    """bool [n]: no version of it is in the graph."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.row)


@dataclass(frozen=True, slots=True)
class RowChanges:
    """Rows of which the graph says something else since a mark, or ever: N entries, by row and time.

    A row has one entry for each distinct visible time of its versions, from the earliest new one on: from then on it
    may show other cells, links or none. A row that came as an upsert counts as changed; one that was inserted and not
    changed since has no entry, nor has one that retention dropped or an erasure emptied. Where an erasure left a row
    some of its versions, it has one for each of these.
    """

    table: str
    row: Int64
    """int64 [N], ascending."""
    visible_time_us: Int64
    """int64 [N], ascending within a row; ALWAYS_US for a change without time."""
    mark: ChangeMark
    """Where the next look begins."""

    def __len__(self) -> int:
        """The number of entries."""
        return len(self.row)
