"""The sample: the rows a question may know, as frozen named columns over all nodes of all seeds.

native Sample (one block a column) -> Neighborhood -> numpy arrays over the same memory, made when first asked for
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from temporal_graph.schema import Column, ColumnKind, Schema, Table
from temporal_graph.view import GraphPosition

if TYPE_CHECKING:
    from temporal_graph import _native

_CODED = (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL, ColumnKind.TEXT)


class _Frozen:
    """Attributes are set once, by the class itself."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be removed")


class TableColumns(_Frozen):
    """The cells of all sampled rows of one table, in the version that each seed's cut-off sees.

    Row i of every array belongs to the node `node[i]`. Columns of one kind stand side by side in the schema's order. A
    seed shows its first version (or, of `sample_keys`, the one visible at the cut-off), and a scored one no outcome.
    """

    table: str

    def __init__(self, sample: _native.Sample, index: int, table: Table) -> None:
        self.__dict__.update(_sample=sample, _index=index, _columns=table.columns, table=table.name)

    @cached_property
    def node(self) -> npt.NDArray[np.int32]:
        """int32 [n]: index of the node, ascending."""
        return self._sample.gathered_node(self._index)

    @cached_property
    def numerical(self) -> npt.NDArray[np.float64]:
        """float64 [n, numerical columns], NaN is null."""
        return self._sample.gathered_numerical(self._index)

    @cached_property
    def coded(self) -> npt.NDArray[np.int32]:
        """int32 [n, categorical, multicategorical and text columns]: codes of the column's dictionary, 0 is null.

        Code -1 - k is `Neighborhood.unseen[k]`. The string of a multicategorical joins its sorted elements with U+001F.
        """
        return self._sample.gathered_coded(self._index)

    @cached_property
    def boolean(self) -> npt.NDArray[np.uint8]:
        """uint8 [n, boolean columns]: 0, 1, and 2 for null."""
        return self._sample.gathered_boolean(self._index)

    @cached_property
    def timestamp(self) -> npt.NDArray[np.int64]:
        """int64 [n, timestamp columns] in microseconds, -2**63 is null."""
        return self._sample.gathered_timestamp(self._index)

    @cached_property
    def embedding(self) -> npt.NDArray[np.float32]:
        """float32 [n, sum of dimensions]: embedding columns side by side, NaN is null."""
        return self._sample.gathered_embedding(self._index)

    @cached_property
    def numerical_names(self) -> tuple[str, ...]:
        """Names of the columns of `numerical`."""
        return self._names(ColumnKind.NUMERICAL)

    @cached_property
    def coded_names(self) -> tuple[str, ...]:
        """Names of the columns of `coded`."""
        return self._names(*_CODED)

    @cached_property
    def boolean_names(self) -> tuple[str, ...]:
        """Names of the columns of `boolean`."""
        return self._names(ColumnKind.BOOLEAN)

    @cached_property
    def timestamp_names(self) -> tuple[str, ...]:
        """Names of the columns of `timestamp`."""
        return self._names(ColumnKind.TIMESTAMP)

    @cached_property
    def embedding_names(self) -> tuple[str, ...]:
        """Names of the embedding columns; each takes `Column.dim` columns of `embedding`."""
        return self._names(ColumnKind.EMBEDDING)

    def __len__(self) -> int:
        return len(self.node)

    def _names(self, *kinds: ColumnKind) -> tuple[str, ...]:
        return tuple(column.name for column in self._columns if column.kind in kinds)

    if TYPE_CHECKING:
        _sample: _native.Sample
        _index: int
        _columns: tuple[Column, ...]


class Neighborhood(_Frozen):
    """The neighborhoods of one request: seed after seed, each with its seed first and then breadth first.

    A row appears once per seed. Arrays are views of one block of memory, made when first asked for, and must not be
    written to. N nodes, E edges, B seeds.
    """

    schema: Schema

    def __init__(self, sample: _native.Sample, schema: Schema) -> None:
        self.__dict__.update(_sample=sample, schema=schema)

    @cached_property
    def seed_offset(self) -> npt.NDArray[np.int64]:
        """int64 [B + 1]: the nodes of seed b are [seed_offset[b], seed_offset[b + 1])."""
        return self._sample.seed_offset

    @cached_property
    def cutoff_time_us(self) -> npt.NDArray[np.int64]:
        """int64 [B]: what each seed's question may know."""
        return self._sample.cutoff_time_us

    @cached_property
    def table(self) -> npt.NDArray[np.uint8]:
        """uint8 [N]: index into `schema.tables`."""
        return self._sample.table

    @cached_property
    def row(self) -> npt.NDArray[np.int64]:
        """int64 [N]: the row's index in its table; -1 for a seed or a row of a session that is not in the graph."""
        return self._sample.row

    @cached_property
    def hop(self) -> npt.NDArray[np.uint8]:
        """uint8 [N]: links between the seed (0) and the row."""
        return self._sample.hop

    @cached_property
    def parent(self) -> npt.NDArray[np.int32]:
        """int32 [N]: the node from which this one was first reached, -1 for seeds."""
        return self._sample.parent

    @cached_property
    def link(self) -> npt.NDArray[np.int16]:
        """int16 [N]: index into `schema.edge_types` by which it was first reached, -1 for seeds."""
        return self._sample.link

    @cached_property
    def event_time_us(self) -> npt.NDArray[np.int64]:
        """int64 [N]: when it happened; ALWAYS_US (-2**63) for rows without time, bare ones among them."""
        return self._sample.event_time_us

    @cached_property
    def known_time_us(self) -> npt.NDArray[np.int64]:
        """int64 [N]: when it could first have been known; ALWAYS_US for rows without time."""
        return self._sample.known_time_us

    @cached_property
    def version(self) -> npt.NDArray[np.int32]:
        """int32 [N]: which version is shown, 0 the first; -1 for a bare row, which has no cells."""
        return self._sample.version

    @cached_property
    def edge_offset(self) -> npt.NDArray[np.int64]:
        """int64 [B + 1]: the edges of seed b are [edge_offset[b], edge_offset[b + 1])."""
        return self._sample.edge_offset

    @cached_property
    def edge_source(self) -> npt.NDArray[np.int32]:
        """int32 [E]: the node that was expanded."""
        return self._sample.edge_source

    @cached_property
    def edge_target(self) -> npt.NDArray[np.int32]:
        """int32 [E]: the node that was reached, new or already in the neighborhood."""
        return self._sample.edge_target

    @cached_property
    def edge_link(self) -> npt.NDArray[np.int16]:
        """int16 [E]: index into `schema.edge_types`."""
        return self._sample.edge_link

    @cached_property
    def columns(self) -> Mapping[str, TableColumns]:
        """The cells by name of the table; every table of the schema has an entry."""
        return MappingProxyType(
            {table.name: TableColumns(self._sample, index, table) for index, table in enumerate(self.schema.tables)}
        )

    @cached_property
    def unseen(self) -> tuple[str, ...]:
        """Code -1 - k of a coded cell is the string `unseen[k]`: an event's that the graph has never stored."""
        return tuple(self._sample.unseen)

    @cached_property
    def position(self) -> GraphPosition:
        """Where in the stream the graph stood when this was sampled."""
        at = self._sample.position
        offsets = dict(zip(zip(at.topics, at.partitions, strict=True), at.offsets, strict=True))
        return GraphPosition(at.generation, at.sequence, offsets)

    def standing_at(self, position: GraphPosition) -> Neighborhood:
        """The same sample, of a graph that stood there: it was sampled from a part of it."""
        found = Neighborhood(self._sample, self.schema)
        found.__dict__["position"] = position
        return found

    def __len__(self) -> int:
        """The number of seeds."""
        return len(self.cutoff_time_us)

    def __repr__(self) -> str:
        return f"Neighborhood({len(self)} seeds, {len(self.row)} rows, {len(self.edge_source)} edges)"

    if TYPE_CHECKING:
        _sample: _native.Sample
