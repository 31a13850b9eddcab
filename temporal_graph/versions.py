"""A table as it was at every moment: the states of its rows, each with the time from which and until which it held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


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
