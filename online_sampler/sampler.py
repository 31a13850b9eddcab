"""The reader's question: seeds, each with its own cut-off, to their neighborhoods, by one plan.

rows | keys | events | rows with sessions, cut-offs -> native walk over the pinned graph -> Neighborhood
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from online_sampler.errors import SeedError
from online_sampler.neighborhood import Neighborhood
from online_sampler.plan import SamplingPlan
from online_sampler.resolved_plan import resolve
from temporal_graph import _native
from temporal_graph.view import GraphView

Times = npt.NDArray[np.int64]


class Sampler:
    """Samples one graph by one plan. One per thread: it owns memory that every call uses again.

    `most_recent` is deterministic. The random strategies draw from a stream that the sampler's seed and the request's
    number fix: by default the n-th call of a sampler uses number n, so two samplers of the same seed that are asked
    the same say the same; `request` gives the number instead, which makes a call repeatable by itself.
    """

    def __init__(self, view: GraphView, plan: SamplingPlan, *, seed: int = 0) -> None:
        """Lays the plan over the view's schema.

        Raises:
            PlanError: the plan names a link that the schema does not have.
        """
        resolved = resolve(plan, view.schema.edge_types)
        self.view = view
        self.plan = plan
        self._schema = view.schema
        self._tables = {table.name: index for index, table in enumerate(view.schema.tables)}
        self._native = _native.Sampler(
            view.native,
            resolved.node_limit,
            resolved.num_neighbors,
            resolved.strategy,
            resolved.half_life,
            seed & (2**64 - 1),
        )

    def sample_rows(
        self, table: str, rows: Times, cutoff_time_us: Times, *, as_of: bool = False, request: int | None = None
    ) -> Neighborhood:
        """Samples around rows of the graph, each shown as it arrived: its first version, its outcome null.

        Args:
            table: the seeds' table.
            rows: int64 [B], indices of rows.
            cutoff_time_us: int64 [B]; to score a row at its own time t, t - 1; to ask about an entity as of t, t.
            as_of: show each seed as it stood at its cut-off instead, outcome included, as `sample_keys` does.
            request: fixes the random strategies' draws.

        Raises:
            SeedError: a row is not in the graph, or the arrays differ in length.
        """
        return self._rows(table, rows, cutoff_time_us, as_of, request)

    def sample_keys(
        self,
        table: str,
        keys: Sequence[int | str | tuple[int | str, ...]],
        cutoff_time_us: Times,
        *,
        request: int | None = None,
    ) -> Neighborhood:
        """Samples around entities as of their cut-offs, outcome included; an unknown key is a seed alone, row -1.

        Args:
            table: the seeds' table.
            keys: B primary keys; a tuple of parts where the key is composite.
            cutoff_time_us: int64 [B].
            request: fixes the random strategies' draws.

        Raises:
            SeedError: the arrays differ in length.
        """
        return self._rows(table, self.view.row_index(table, keys), cutoff_time_us, True, request)

    def sample_events(
        self, events: Sequence[bytes], cutoff_time_us: Times, *, request: int | None = None
    ) -> Neighborhood:
        """Samples around serialized RowEvents that are not in the graph: payments being scored.

        The seed is virtual (row -1): its cells are the event's, its outcome null, its links are followed by key. A row
        of the same key that is already in the graph is never its neighbor.

        Args:
            events: B serialized `nowgraph.v1.RowEvent`.
            cutoff_time_us: int64 [B]; to score an event at its own time t, t - 1.
            request: fixes the random strategies' draws.

        Raises:
            SeedError: bytes are no RowEvent or do not fit the schema; says which and why, never a value.
        """
        try:
            sample = self._native.sample_events(events, cutoff_time_us, request)
        except (ValueError, IndexError) as error:
            raise SeedError(str(error)) from error
        return Neighborhood(sample, self._schema)

    def sample_sessions(
        self,
        table: str,
        rows: Times,
        sessions: Sequence[Sequence[bytes]],
        cutoff_time_us: Times,
        *,
        link: str,
        asked_time_us: Times | None = None,
        request: int | None = None,
    ) -> Neighborhood:
        """Samples around entities as of their cut-offs, each with events that the graph does not hold: its session.

        The events are rows of the neighborhood like any other (hop 1, row -1, version 0), before the graph's own
        children over the link, the newest first (of equal times the later given), and they count in its number at
        hop 1. Their cells are their own, outcomes too; their other links are followed by key. With empty sessions this
        is `sample_keys`.

        An event that the graph shows as a child of its seed is left out: the graph's row is there. Of one key only the
        newest is taken; a row that the graph has under its key, of another parent or time, gives no second node. In a
        table without keys the event's id is its key, if it has one.

        Args:
            table: the seeds' table.
            rows: int64 [B], indices of rows, -1 for an entity nobody knows; `GraphView.row_index` gives those of keys.
            sessions: B times serialized `nowgraph.v1.RowEvent` of the link's child table, oldest first. Their link may
                name the seed or nothing.
            cutoff_time_us: int64 [B].
            link: edge type from the table to its children.
            asked_time_us: int64 [B], when the questions are asked, where the graph is read only up to an earlier
                cut-off: what their sessions may know. Without it, the cut-offs.
            request: fixes the random strategies' draws.

        Raises:
            SeedError: bytes are no row of their session (no RowEvent, of another table or parent, a delete, later than
                the question): says which and why, never a value. No such link or row; the arrays differ in length.
        """
        edge_type = self._edge_type_to_children(table, link)
        index, asked = self._tables[table], cutoff_time_us if asked_time_us is None else asked_time_us
        try:
            sample = self._native.sample_sessions(index, rows, sessions, edge_type, cutoff_time_us, asked, request)
        except (ValueError, IndexError) as error:
            raise SeedError(str(error)) from error
        return Neighborhood(sample, self._schema)

    def _edge_type_to_children(self, table: str, link: str) -> int:
        of_table = [one.backward for one in self._schema.links if one.parent == table]
        if link not in of_table:
            raise SeedError(f"{link!r} does not lead from table {table!r} to its children, only {of_table} do")
        return self._schema.edge_types.index(link)

    def _rows(self, table: str, rows: Times, cutoff_time_us: Times, as_of: bool, request: int | None) -> Neighborhood:
        index = self._tables.get(table)
        if index is None:
            raise SeedError(f"the schema has no table {table!r}, only {', '.join(self._tables)}")
        try:
            sample = self._native.sample_rows(index, rows, cutoff_time_us, as_of, request)
        except (ValueError, IndexError) as error:
            raise SeedError(str(error)) from error
        return Neighborhood(sample, self._schema)
