"""The most-recent sampler of the plain twin: breadth first, one seed at a time, straight from the rules.

    seed, cut-off ─► for each hop, for each node reached in it, for each edge type leaving its table ─► nodes, edges

Edge types are taken in the order of `schema.edge_types`. Along a backward one the children come newest first (by the
visible time at which their link opened, ties by key, both descending), at most the plan's number; along a forward one
comes the parent, unless the plan's number is 0. The seed's own row is passed over and does not count; a row already in
the neighborhood counts and gives an edge, but no second node. Once `node_limit` nodes are in, the seed's included, no
row is added: a new one is passed over, and edges go only to rows already in.

A seed's session is events that are not in the graph, each a row of one link's child table. They stand before its other
children of that link, the newest first (by visible time, then by place), and count in the plan's number. Left out are
those whose row is a child of the seed by the graph or is the seed, and all but the newest of one key. What they say of
their parents holds; a row of the same key that the graph reaches elsewhere is the same node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from temporal_graph.reference import ReferenceEvent, ReferenceGraph
from temporal_graph.reference_values import Key, Value, canonical_cells
from temporal_graph.schema_types import Link
from temporal_graph.time_rule import visible_time_us

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
    """A row of a neighborhood: `parent` is the position of the node it was reached from, -1 for the seed.

    `event` is the one that a row of a session is.
    """

    table: str
    key: Key
    hop: int
    parent: int
    edge_type: str | None
    event: ReferenceEvent | None = None


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
    sessions: Sequence[Sequence[ReferenceEvent]] | None = None,
    session_link: str = "",
) -> list[ReferenceNeighborhood]:
    """Sample the neighborhood of each (table, key) at its own cut-off.

    `seed_cells` gives a seed's cells (links as tuples of parts) where they are not those of its state at the cut-off:
    for an event that is scored, the event's own, or `ReferenceGraph.first_version` of its row. `sessions` gives each
    seed's, over the backward edge type `session_link`.
    """
    given = seed_cells if seed_cells is not None else [None] * len(seeds)
    with_seeds = sessions if sessions is not None else [()] * len(seeds)
    return [
        _Walk(graph, plan, seed=seed, cutoff_time_us=cutoff, session=session, session_link=session_link).run(cells)
        for seed, cutoff, cells, session in zip(seeds, cutoffs, given, with_seeds, strict=True)
    ]


class _Walk:
    """One seed's breadth-first walk."""

    def __init__(
        self,
        graph: ReferenceGraph,
        plan: ReferencePlan,
        *,
        seed: tuple[str, Key],
        cutoff_time_us: int,
        session: Sequence[ReferenceEvent],
        session_link: str,
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._seed = seed
        self._cutoff_time_us = cutoff_time_us
        self._session = session
        self._session_link = session_link
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
                number = self._plan.number(hop, link.backward)
                if position == 0 and link.backward == self._session_link:
                    number -= self._reach_session(link, number)
                self._reach(position, hop, link.child, self._newest(link, node.key, number), link.backward)

    def _cells(self, position: int) -> Mapping[str, Value]:
        if position == 0 and self._seed_cells is not None:
            return self._seed_cells
        node = self._found.nodes[position]
        if node.event is not None:
            table = self._graph.schema.table(node.table)
            return canonical_cells(table, node.event.operation, node.event.cells)
        state = self._graph.state(node.table, node.key, self._cutoff_time_us)
        return {} if isinstance(state, str) else state

    def _reach_session(self, link: Link, number: int) -> int:
        """Reach the session's newest rows as children of the seed; return how many count."""
        known = {child for _, child in self._graph.children(link.backward, self._seed[1], self._cutoff_time_us)}
        by_key: dict[Key, tuple[int, int]] = {}
        for place, event in enumerate(self._session):
            if event.key in known or (link.child, event.key) == self._seed:
                continue
            known_time_us = event.event_time_us if event.known_time_us is None else event.known_time_us
            newness = visible_time_us(event.event_time_us, known_time_us), place
            by_key[event.key] = max(newness, by_key.get(event.key, newness))
        newest = [place for _, place in sorted(by_key.values(), reverse=True)[:number]]
        for place in newest:
            self._reach(0, 0, link.child, [self._session[place].key], link.backward, event=self._session[place])
        return len(newest)

    def _newest(self, link: Link, parent: Key, number: int) -> list[Key]:
        oldest_first = self._graph.children(link.backward, parent, self._cutoff_time_us)
        newest = [child for _, child in reversed(oldest_first) if (link.child, child) != self._seed]
        return newest[:number]

    def _reach(
        self,
        source: int,
        hop: int,
        table: str,
        keys: Sequence[Key],
        edge_type: str,
        *,
        event: ReferenceEvent | None = None,
    ) -> None:
        for key in keys:
            row = (table, key)
            if row == self._seed:
                continue
            if row not in self._position:
                if len(self._found.nodes) >= self._plan.node_limit:
                    continue
                self._position[row] = len(self._found.nodes)
                self._found.nodes.append(ReferenceNode(table, key, hop + 1, source, edge_type, event))
            self._found.edges.append((source, self._position[row], edge_type))
