"""The most-recent sampler of the plain twin: breadth first, one seed at a time, straight from the rules.

    seed, cut-off ─► for each hop, for each node reached in it, for each edge type leaving its table ─► nodes, edges

Edge types are taken in the order of `schema.edge_types`. Along a backward one the children come newest first (by the
visible time at which their link opened, ties by key, both descending), at most the plan's number; along a forward one
comes the parent, unless the plan's number is 0. The seed's own row is passed over and does not count; a row already in
the neighborhood counts and gives an edge, but no second node. Once `node_limit` nodes are in, the seed's included, no
row is added: a new one is passed over, and edges go only to rows already in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from temporal_graph.reference import ReferenceGraph
from temporal_graph.reference_values import Key, Value
from temporal_graph.schema_types import Link

DEFAULT = "default"


@dataclass(frozen=True)
class ReferencePlan:
    """Per hop, how many children to take along each edge type, `default` where it is not named; 0 switches it off."""

    num_neighbors: Sequence[Mapping[str, int]]
    node_limit: int = 2**31 - 1

    def number(self, hop: int, edge_type: str) -> int:
        """Return the number for a hop (0 is the first) and edge type."""
        numbers = self.num_neighbors[hop]
        return numbers.get(edge_type, numbers.get(DEFAULT, 0))


@dataclass(frozen=True)
class ReferenceNode:
    """A row of a neighborhood: `parent` is the position of the node it was reached from, -1 for the seed."""

    table: str
    key: Key
    hop: int
    parent: int
    edge_type: str | None


@dataclass
class ReferenceNeighborhood:
    """The nodes of one seed in the order they were reached, and edges (source position, target position, edge type)."""

    nodes: list[ReferenceNode] = field(default_factory=list)
    edges: list[tuple[int, int, str]] = field(default_factory=list)


def sample_most_recent(
    graph: ReferenceGraph,
    seeds: Sequence[tuple[str, Key]],
    plan: ReferencePlan,
    cutoffs: Sequence[int],
    *,
    seed_cells: Sequence[Mapping[str, Value] | None] | None = None,
) -> list[ReferenceNeighborhood]:
    """Sample the neighborhood of each (table, key) at its own cut-off.

    `seed_cells` gives a seed's cells (links as tuples of parts) where they are not those of its state at the cut-off:
    for an event that is scored, the event's own, or `ReferenceGraph.first_version` of its row.
    """
    given = seed_cells if seed_cells is not None else [None] * len(seeds)
    return [
        _Walk(graph, plan, seed=seed, cutoff_time_us=cutoff).run(cells)
        for seed, cutoff, cells in zip(seeds, cutoffs, given, strict=True)
    ]


class _Walk:
    """One seed's breadth-first walk."""

    def __init__(
        self, graph: ReferenceGraph, plan: ReferencePlan, *, seed: tuple[str, Key], cutoff_time_us: int
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._seed = seed
        self._cutoff_time_us = cutoff_time_us
        self._seed_cells: Mapping[str, Value] | None = None
        self._position = {seed: 0}
        self._found = ReferenceNeighborhood([ReferenceNode(*seed, 0, -1, None)])

    def run(self, seed_cells: Mapping[str, Value] | None) -> ReferenceNeighborhood:
        self._seed_cells = seed_cells
        frontier = [0]
        for hop in range(len(self._plan.num_neighbors)):
            start = len(self._found.nodes)
            for position in frontier:
                self._expand(position, hop)
            frontier = list(range(start, len(self._found.nodes)))
        return self._found

    def _expand(self, position: int, hop: int) -> None:
        node = self._found.nodes[position]
        cells = self._cells(position)
        for link in self._graph.schema.links:
            if link.child == node.table and self._plan.number(hop, link.forward) > 0:
                parent = self._graph.shown_parent(link, cells, self._cutoff_time_us)
                if parent is not None:
                    self._reach(position, hop, link.parent, [parent], link.forward)
            if link.parent == node.table:
                self._reach(position, hop, link.child, self._newest(link, node.key, hop), link.backward)

    def _cells(self, position: int) -> Mapping[str, Value]:
        if position == 0 and self._seed_cells is not None:
            return self._seed_cells
        node = self._found.nodes[position]
        state = self._graph.state(node.table, node.key, self._cutoff_time_us)
        return {} if isinstance(state, str) else state

    def _newest(self, link: Link, parent: Key, hop: int) -> list[Key]:
        oldest_first = self._graph.children(link.backward, parent, self._cutoff_time_us)
        newest = [child for _, child in reversed(oldest_first) if (link.child, child) != self._seed]
        return newest[: self._plan.number(hop, link.backward)]

    def _reach(self, source: int, hop: int, table: str, keys: Sequence[Key], edge_type: str) -> None:
        for key in keys:
            row = (table, key)
            if row == self._seed:
                continue
            if row not in self._position:
                if len(self._found.nodes) >= self._plan.node_limit:
                    continue
                self._position[row] = len(self._found.nodes)
                self._found.nodes.append(ReferenceNode(table, key, hop + 1, source, edge_type))
            self._found.edges.append((source, self._position[row], edge_type))
