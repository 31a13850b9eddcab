"""What a model reads: one array per kind of information over all rows, and the grid that puts rows beside seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TableBatch:
    """The encoded cells of the n sampled rows of one table.

    node int64[n] (index of the row in the batch), dense float32[n, F], category int64[n, C] (per categorical column).
    """

    table: str
    node: Tensor
    dense: Tensor
    category: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """N rows of B neighborhoods, seed-major, each seed first among its rows.

    path, also, state int64[N]; clock float32[N, T]; age_days float32[N]; token int64[B, K] (a row's index, N where a
    neighborhood has fewer than K rows) or None where row b * K + k is simply (b, k).
    """

    size: int
    width: int
    path: Tensor
    also: Tensor
    state: Tensor
    clock: Tensor
    age_days: Tensor
    token: Tensor | None
    tables: tuple[TableBatch, ...]

    @property
    def nodes(self) -> int:
        """N, the rows of all neighborhoods."""
        return int(self.path.shape[0])

    def mask(self) -> Tensor | None:
        """Return bool[B, K], true where a row is, or None where every place holds one."""
        return None if self.token is None else self.token < self.nodes

    def alone(self, seed_offset: NDArray[np.int64], seed: int) -> Batch:
        """Return the batch of one seed, copied into memory that PyTorch has aligned; `seed_offset` is int64[B + 1].

        What an operation does with the same numbers in the same shape and alignment is the same to the last bit.
        """
        start, end = int(seed_offset[seed]), int(seed_offset[seed + 1])
        tables = []
        for table in self.tables:
            first, last = torch.searchsorted(table.node, torch.tensor([start, end])).tolist()
            if last > first:
                rows = slice(first, last)
                cells = table.dense[rows].clone(), table.category[rows].clone()
                tables.append(TableBatch(table.table, table.node[rows] - start, *cells))
        return Batch(
            size=1,
            width=end - start,
            path=self.path[start:end].clone(),
            also=self.also[start:end].clone(),
            state=self.state[start:end].clone(),
            clock=self.clock[start:end].clone(),
            age_days=self.age_days[start:end].clone(),
            token=None,
            tables=tuple(tables),
        )

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        tables = tuple(TableBatch(t.table, move(t.node), move(t.dense), move(t.category)) for t in self.tables)
        return Batch(
            size=self.size,
            width=self.width,
            path=move(self.path),
            also=move(self.also),
            state=move(self.state),
            clock=move(self.clock),
            age_days=move(self.age_days),
            token=None if self.token is None else move(self.token),
            tables=tables,
        )
