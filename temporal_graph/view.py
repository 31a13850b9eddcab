"""The read face of the graph: keys to rows, codes to strings, positions. Any process, any number, never a lock.

Sampling is done by `online_sampler.Sampler`, which takes a view; whatever reads rows at a cut-off goes through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from temporal_graph import _native
from temporal_graph.columns import columns_link
from temporal_graph.errors import ArenaError, SchemaMismatchError
from temporal_graph.generations import CompleteTime, CurrentGeneration, arena_path, complete_path
from temporal_graph.schema import ColumnKind, Schema
from temporal_graph.versions import ChangeMark, RowChanges, RowTail, TableVersions

Key = int | str | tuple[int | str, ...]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GraphPosition:
    """A published state: the arena's generation, events applied in it, and the next offset of each partition."""

    generation: int
    sequence: int
    offsets: dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Every change that set a column: columns of equal length N.

    row int64; event_time_us int64, of the row; value float64 (a boolean as 0 or 1, a categorical's code);
    visible_time_us int64, from when on the change may be known.
    """

    row: Int64
    event_time_us: Int64
    value: NDArray[np.float64]
    visible_time_us: Int64


@dataclass(frozen=True, slots=True)
class Erased:
    """What erasures have removed of a table, in all.

    rows that lost all their versions, or their key; versions; links of them, in the lists of what they named; strings
    that no other cell of their column holds.
    """

    rows: int
    versions: int
    links: int
    strings: int


class GraphView:
    """A reader of one generation. Not for two threads at once; samplers made from it have their own readers."""

    def __init__(
        self, schema: Schema, arena: _native.Arena, *, folder: Path | None, complete: CompleteTime | None = None
    ) -> None:
        self.schema: Final = schema
        self._arena = arena
        self._folder = folder
        self._complete = complete
        self._native = _native.View(arena)
        self._current = CurrentGeneration(folder) if folder is not None else None
        self._tables = {table.name: index for index, table in enumerate(schema.tables)}
        self._columns = {
            (table.name, column.name): index for table in schema.tables for index, column in enumerate(table.columns)
        }

    @classmethod
    def attach(cls, schema: Schema, arena: Path) -> Self:
        """Map the serving generation of a folder.

        Raises:
            ArenaError: nothing is served from the folder, its arena has another layout, or its columns' file is
                missing, cut off or of another arena.
            SchemaMismatchError: the arena was made under another schema.
        """
        for _ in range(ATTACH_ATTEMPTS):
            current = CurrentGeneration(arena)
            generation = current.get()
            current.close()
            if generation == 0:
                raise ArenaError(f"no graph is served from {arena}: its writer has not caught up yet")
            path = arena_path(arena, generation)
            try:
                native = _native.Arena.attach(str(path), str(columns_link(arena, generation)))
            except _native.ArenaRefused as error:
                if path.exists():
                    raise ArenaError(str(error)) from error
                continue  # replaced between the two looks
            if native.fingerprint != schema.fingerprint():
                raise SchemaMismatchError(
                    f"the graph in {arena} was made under schema {native.fingerprint[:12]}, "
                    f"not under {schema.fingerprint()[:12]}"
                )
            complete = CompleteTime.attach(complete_path(arena, generation))
            return cls(schema, native, folder=arena, complete=complete)
        raise ArenaError(f"the generations of {arena} change faster than they can be mapped")

    def twin(self) -> Self:
        """Return another view of the same generation, for another thread."""
        return type(self)(self.schema, self._arena, folder=self._folder, complete=self._complete)

    @property
    def native(self) -> _native.View:
        """The native view, for the sampler."""
        return self._native

    @property
    def generation(self) -> int:
        """The generation this view reads."""
        return int(self._arena.generation)

    @property
    def superseded(self) -> bool:
        """Whether the folder serves another generation by now: attach anew. One load from mapped memory."""
        return self._current is not None and self._current.get() != self._arena.generation

    @property
    def watermark_us(self) -> int:
        """The newest event time of the published graph; ALWAYS_US when no row has a time."""
        return int(self._native.position().watermark_us)

    @property
    def writer_pulse_us(self) -> int:
        """When the writer last published: microseconds of the wall clock."""
        return int(self._native.writer_pulse_us())

    @property
    def complete_time_us(self) -> int | None:
        """Up to when the graph holds all that its log held: microseconds of the wall clock, as the writer last knew.

        It goes on while the log is quiet and stands still while the writer is behind, or gone, or cannot ask the
        broker. None before the writer knew, and for a graph without a log.
        """
        return (self._complete.get() or None) if self._complete is not None else None

    def readers(self) -> int:
        """Return how many reader slots of the arena living readers hold, the writer's own among them."""
        return int(self._native.readers())

    @property
    def evictions(self) -> int:
        """Counts retention passes that dropped something: row indices found before may be gone."""
        return int(self._native.evictions())

    def erased(self, table: str) -> Erased:
        """Return what erasures have removed of the table since the graph was made, snapshots included."""
        return Erased(*self._native.erased(self._table(table)))

    def erased_rows(self, table: str) -> Int64:
        """Return int64 [N], ascending: the rows whose key was erased; a look at each row of the table."""
        rows: Int64 = self._native.erased_rows(self._table(table))
        return rows

    @property
    def erasures(self) -> int:
        """Counts how often more was erased than before: one look tells whether `erased` has changed."""
        return int(self._native.erasures())

    @property
    def overwrites_due(self) -> int:
        """How many erased places still hold their bytes: they are overwritten once no reader can reach them."""
        return int(self._native.overwrites_due())

    def position(self) -> GraphPosition:
        """Return the published state, its sequence and offsets taken together."""
        at = self._native.position()
        offsets = dict(zip(zip(at.topics, at.partitions, strict=True), at.offsets, strict=True))
        return GraphPosition(at.generation, at.sequence, offsets)

    def row_count(self, table: str) -> int:
        """Return the number of published rows, bare ones included."""
        return int(self._native.row_count(self._table(table)))

    def row_index(self, table: str, keys: Sequence[Key] | Int64) -> Int64:
        """Return int64 [N]: the row of each key, -1 for one that is not in the graph."""
        rows: Int64
        if isinstance(keys, np.ndarray):
            rows = self._native.row_index_of_integers(self._table(table), keys)
        else:
            rows = self._native.row_index(self._table(table), keys)
        return rows

    def keys(self, table: str, rows: Int64) -> list[Key | None]:
        """Return the key of each row of int64 [N], None for -1 and for a row that was erased.

        Raises IndexError for a row that is not published.
        """
        return list(self._native.keys(self._table(table), np.ascontiguousarray(rows, dtype=np.int64)))

    def strings(self, table: str, column: str, codes: NDArray[np.int32]) -> list[str | None]:
        """Return the string of each code of int32 [N], None for 0 (null) and negative ones (a sample's own)."""
        codes = np.ascontiguousarray(codes, dtype=np.int32)
        return list(self._native.strings(self._table(table), self._column(table, column), codes))

    def dictionary_size(self, table: str, column: str) -> int:
        """Return the number of codes of a categorical, multicategorical or text column, the null code 0 counted."""
        return int(self._native.dictionary_size(self._table(table), self._column(table, column)))

    def outcomes(self, table: str, column: str) -> Outcomes:
        """Return every change that set the column to something, in row order."""
        return Outcomes(*self._native.outcomes(self._table(table), self._column(table, column)))

    def times(self, table: str) -> tuple[Int64, Int64]:
        """Return event and known time, int64 [rows] each, of every published row's first version."""
        event_time_us, known_time_us = self._native.times(self._table(table))
        return event_time_us, known_time_us

    def rows_from(self, table: str, first: int) -> RowTail:
        """Return what was appended to the table since it had `first` rows: each such row as it arrived, in row order.

        One look at the published state where there is nothing new. A row keeps its number and its place; what changes
        later (a bare row that is inserted, a link that moves) is told by `rows_changed`, and asked of `rows_at`,
        `versions` or a sampler.

        Raises:
            ValueError: `first` is negative.
        """
        if first < 0:
            raise ValueError(f"first: expected a number of rows, found {first}")
        row, event_time_us, visible_time_us, parents, bare = self._native.rows_from(self._table(table), first)
        return RowTail(table, row, event_time_us, visible_time_us, parents, bare.view(np.bool_))

    def rows_at(self, table: str, rows: Int64) -> RowTail:
        """Return how each row of int64 [N] arrived; raises IndexError for a row that is not published."""
        found = self._native.rows_at(self._table(table), np.ascontiguousarray(rows, dtype=np.int64))
        row, event_time_us, visible_time_us, parents, bare = found
        return RowTail(table, row, event_time_us, visible_time_us, parents, bare.view(np.bool_))

    def rows_changed(self, table: str, since: ChangeMark | None = None) -> RowChanges:
        """Return the rows that changed since a mark of this generation, or ever, and the next mark.

        What is published is told once. Two loads where nothing has changed; else a look at each row's newest version,
        or at all versions of the table where one came that is older than its row's newest. An updater of a release that
        does not count changes has none to tell.
        """
        row, visible_time_us, mark = self._native.changed_rows(self._table(table), since)
        return RowChanges(table, row, visible_time_us, mark)

    def versions(self, table: str) -> TableVersions:
        """Return the table as it was at every moment, by row and time; other threads run meanwhile.

        One snapshot of the graph, in time and memory linear in its versions. What it holds while it is made, it keeps
        the writer from reusing.
        """
        found = self.schema.table(table)
        columns = self._native.states(self._table(table))
        row, event_time_us, valid_from_us, valid_to_us, deleted, parents = columns[:6]
        numerical, coded, boolean, timestamp, embedding = columns[6:]

        def names(*kinds: ColumnKind) -> tuple[str, ...]:
            return tuple(column.name for column in found.columns if column.kind in kinds)

        return TableVersions(
            table=table,
            row=row,
            event_time_us=event_time_us,
            valid_from_us=valid_from_us,
            valid_to_us=valid_to_us,
            deleted=deleted.view(np.bool_),
            parents=parents,
            numerical=numerical,
            coded=coded,
            boolean=boolean,
            timestamp=timestamp,
            embedding=embedding,
            numerical_names=names(ColumnKind.NUMERICAL),
            coded_names=names(ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL, ColumnKind.TEXT),
            boolean_names=names(ColumnKind.BOOLEAN),
            timestamp_names=names(ColumnKind.TIMESTAMP),
            embedding_names=names(ColumnKind.EMBEDDING),
            link_names=tuple(link.name for link in found.links),
        )

    def close(self) -> None:
        """Let go of the folder; the arena goes with the last view and sampler of it."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def _table(self, table: str) -> int:
        index = self._tables.get(table)
        return self.schema.table_index(table) if index is None else index

    def _column(self, table: str, column: str) -> int:
        self.schema.table(table).column(column)
        return self._columns[table, column]


ATTACH_ATTEMPTS: Final = 100
"""How often `attach` looks again when the generation it saw is replaced under its hands."""
