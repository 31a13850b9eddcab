"""Who an item is: the items a model learned a vector of its own for, by key, and where they stand in one graph.

keys of the training items ─► Identities (checkpoint) ─► BoundIdentities ─► a code per row of this graph

Rows differ between graphs, keys do not. An item that training did not know has code 0, the one of all unknown ones.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.encoding.batch import Batch
from graph_transformer.ranking.asked import distinct

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood
    from temporal_graph.view import GraphView, Key

Ints = NDArray[np.int64]
IDENTITIES_MAX = 2**22
"""Items with a vector of their own: a gigabyte of weights at 64 numbers each."""


@dataclass(frozen=True, slots=True)
class Identities:
    """The items that training knew: the key of code 1 first."""

    table: str
    keys: tuple[Key, ...]

    @property
    def count(self) -> int:
        """How many codes there are, 0 for the unknown counted."""
        return len(self.keys) + 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"table": self.table, "keys": [list(key) if isinstance(key, tuple) else key for key in self.keys]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Identities:
        """Build from `to_dict`'s values; raises KeyError or TypeError for anything else."""
        keys: Sequence[Any] = values["keys"]
        return cls(str(values["table"]), tuple(tuple(key) if isinstance(key, list) else key for key in keys))


def identities_of(view: GraphView, table: str, row: Ints) -> Identities:
    """Return identities for rows int64[n] of a table, each once, in their order; the first IDENTITIES_MAX."""
    known = distinct(row[row >= 0])[:IDENTITIES_MAX]
    return Identities(table, tuple(key for key in view.keys(table, known) if key is not None))


class BoundIdentities:
    """The codes of one graph's rows. Safe to share between threads: it has a view of its own."""

    def __init__(self, identities: Identities, view: GraphView) -> None:
        self.identities = identities
        self._view = view.twin()
        self._at = view.schema.table_index(identities.table)
        self._code_of = {key: code for code, key in enumerate(identities.keys, start=1)}
        self._one_at_a_time = threading.Lock()
        self._code = np.zeros(0, dtype=np.int64)
        self._grow()

    def codes(self, row: Ints) -> Ints:
        """Return int64[n] of rows int64[n] of the table; -1 (no row of the graph) is unknown."""
        if int(row.max(initial=-1)) >= len(self._code) - 1:
            self._grow()
        # One more place than rows, for -1.
        return self._code[row]

    def of_neighborhood(self, neighborhood: Neighborhood) -> tuple[Ints, Ints]:
        """Return (node int64[I], rising, code int64[I]) of the rows of the table among the neighborhood's."""
        node = np.flatnonzero(neighborhood.table == self._at)
        return node, self.codes(neighborhood.row[node])

    def of_batch(self, batch: Batch, neighborhood: Neighborhood) -> Batch:
        """Return a neighborhood's batch with the identities of its rows."""
        node, code = self.of_neighborhood(neighborhood)
        return replace(batch, identity_node=torch.from_numpy(node), identity_code=torch.from_numpy(code))

    def _grow(self) -> None:
        """Look up the keys of rows that came since: rows stay where they are. The array ends with what -1 reads."""
        with self._one_at_a_time:
            known = max(0, len(self._code) - 1)
            rows = np.arange(known, self._view.row_count(self.identities.table))
            keys = self._view.keys(self.identities.table, rows)
            new = np.fromiter((self._code_of.get(key, 0) for key in keys), dtype=np.int64, count=len(rows))  # type: ignore[arg-type]  # None is no key
            self._code = np.concatenate([self._code[:known], new, np.zeros(1, dtype=np.int64)])
