"""The native sampler and the plain twin, given the same events in any order, see the same neighborhoods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from online_sampler import Neighborhood, Sampler, SamplingPlan
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import Operation, ReferenceEvent, ReferenceGraph
from temporal_graph.reference_sampler import ReferenceNeighborhood, ReferencePlan, sample_most_recent
from temporal_graph.reference_values import canonical_cells
from temporal_graph.schema import ColumnKind, Link, Schema
from temporal_graph.time_rule import ALWAYS_US, visible_time_us

# Ticks of the lists are 2**22 microseconds: times on both sides of a boundary, microseconds and whole ticks apart.
BASE_US = 1_700_000_000_000_000 >> 22 << 22
TIMES = st.builds(lambda tick, offset: BASE_US + tick * (1 << 22) + offset, st.integers(0, 2), st.integers(-4, 4))
OPERATIONS: list[Operation] = ["insert", "insert", "upsert", "delete"]
USERS = st.tuples(st.integers(0, 2))
SHOPS = st.tuples(st.sampled_from(["", "é", "shop"]))
PAYS = st.tuples(st.integers(0, 9))
NOTES = st.tuples(st.sampled_from(["eu", "us"]), st.integers(0, 1))
CELLS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "users": {"country": st.sampled_from(["de", "fr"])},
    "shops": {"score": st.floats(-1e9, 1e9)},
    "pays": {
        "amount": st.floats(-1e9, 1e9),
        "card": st.sampled_from(["a", "b", "c"]),
        "tags": st.lists(st.sampled_from(["x", "y", "z"]), max_size=3),
        "online": st.booleans(),
        "due": st.integers(0, 2**40),
        "note": st.text(max_size=3),
        "place": st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2),
        "fraud": st.booleans(),
        "user_id": USERS,
        "shop_id": SHOPS,
    },
    "notes": {"pay_id": PAYS, "answers_region+answers_number": NOTES},
}
# Explaining a failure runs it hundreds of times more than finding it.
SETTINGS = settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])
KEYS: dict[str, st.SearchStrategy[Any]] = {"users": USERS, "shops": SHOPS, "pays": PAYS, "notes": NOTES}


@st.composite
def events(draw: st.DrawFn) -> ReferenceEvent:
    """An event of the shop; payments most often."""
    table = draw(st.sampled_from(["pays", "pays", "pays", "users", "shops", "notes"]))
    operation: Operation = draw(st.sampled_from(OPERATIONS))
    cells = {}
    if operation != "delete":
        for name, values in CELLS[table].items():
            if draw(st.integers(0, 3)) > 0:
                cells[name] = draw(values if operation == "insert" else st.none() | values)
    if table == "users":
        return ReferenceEvent(table, operation, draw(KEYS[table]), cells=cells)
    event_time_us = draw(TIMES)
    known_time_us = draw(TIMES) if table == "pays" and draw(st.booleans()) else event_time_us
    return ReferenceEvent(table, operation, draw(KEYS[table]), event_time_us, known_time_us, cells)


def without_ties(found: Sequence[ReferenceEvent]) -> list[ReferenceEvent]:
    """Leaves one of the events of a row with equal clocks: which of them is later is the graph's own test."""
    return list({(e.table, e.key, e.event_time_us, e.known_time_us): e for e in found}.values())


def plan_of(schema: Schema) -> st.SearchStrategy[tuple[SamplingPlan, ReferencePlan]]:
    """A plan of up to four hops with overrides, in both forms."""
    number = st.integers(0, 4)
    hop = st.tuples(number, st.dictionaries(st.sampled_from(schema.edge_types), number, max_size=3))

    def build(hops: list[tuple[int, dict[str, int]]], limit: int) -> tuple[SamplingPlan, ReferencePlan]:
        written = [{"default": default, **links} for default, links in hops]
        native = {"num_neighbors": [{f"hop{i + 1}": one} for i, one in enumerate(written)], "node_limit": limit}
        return SamplingPlan.from_dict(native), ReferencePlan(written, limit)

    return st.builds(build, st.lists(hop, min_size=1, max_size=4), st.sampled_from([1, 3, 8, 1000]))


@dataclass
class World:
    """The same events in both graphs."""

    schema: Schema
    graph: TemporalGraph
    twin: ReferenceGraph

    def check(
        self,
        found: Neighborhood,
        expected: Sequence[ReferenceNeighborhood],
        cutoffs: Sequence[int],
        *,
        seeds_too: bool,
    ) -> None:
        """Nodes, edges, states, clocks and cells are equal, seed by seed."""
        view = self.graph.view()
        names = [table.name for table in self.schema.tables]
        for b, twin in enumerate(expected):
            low, high = found.seed_offset[b], found.seed_offset[b + 1]
            nodes = [
                (
                    names[found.table[n]],
                    # What is not in the graph has no row to ask for its key; its cells are compared below.
                    _tuple(view.keys(names[found.table[n]], found.row[n : n + 1])[0])
                    if n > low and found.row[n] >= 0
                    else node.key,
                    int(found.hop[n]),
                    int(found.parent[n]) - int(low) if n > low else -1,
                    self.schema.edge_types[found.link[n]] if n > low else None,
                )
                for n, node in zip(range(low, high), twin.nodes, strict=True)
            ]
            assert nodes == [(n.table, n.key, n.hop, n.parent, n.edge_type) for n in twin.nodes]
            first, last = found.edge_offset[b], found.edge_offset[b + 1]
            edges = zip(found.edge_source[first:last], found.edge_target[first:last], found.edge_link[first:last])  # noqa: B905
            assert [(s - low, t - low, self.schema.edge_types[link]) for s, t, link in edges] == twin.edges
            for position, node in enumerate(twin.nodes):
                if node.event is not None:
                    self._check_event(found, int(low) + position, node.event)
                elif position > 0 or seeds_too:
                    self._check_node(found, int(low) + position, node.table, node.key, cutoffs[b])

    def _check_event(self, found: Neighborhood, n: int, event: ReferenceEvent) -> None:
        assert (found.row[n], found.version[n]) == (-1, 0)
        assert (found.event_time_us[n], found.known_time_us[n]) == (event.event_time_us, event.known_time_us)
        table = self.schema.table(event.table)
        cells = canonical_cells(table, event.operation, event.cells)
        assert cells_of(found, self.graph, n) == {
            column.name: _plain(column.kind, cells.get(column.name)) for column in table.columns
        }

    def _check_node(self, found: Neighborhood, n: int, table: str, key: Any, cutoff_time_us: int) -> None:
        state = self.twin.state(table, key, cutoff_time_us)
        versions = self.twin.dump()[table].get(_key_text(key), {"versions": []})["versions"]
        visible = [v for v in versions if visible_time_us(v[0], v[1]) <= cutoff_time_us]
        if isinstance(state, str):
            assert (found.version[n], found.event_time_us[n], found.known_time_us[n]) == (-1, ALWAYS_US, ALWAYS_US)
            state = {}
        else:
            assert found.version[n] == len(visible) - 1
            assert [found.event_time_us[n], found.known_time_us[n]] == visible[0][:2]
        if found.row[n] >= 0:
            assert cells_of(found, self.graph, n) == {
                column.name: _plain(column.kind, state.get(column.name)) for column in self.schema.table(table).columns
            }


def cells_of(found: Neighborhood, graph: TemporalGraph, n: int) -> dict[str, Any]:
    """The gathered cells of one node as plain values, null as None."""
    table = graph.schema.tables[found.table[n]]
    columns = found.columns[table.name]
    row = int(np.flatnonzero(columns.node == n)[0])
    view = graph.view()
    cells: dict[str, Any] = {}
    for i, name in enumerate(columns.numerical_names):
        cells[name] = None if math.isnan(columns.numerical[row, i]) else float(columns.numerical[row, i])
    for i, name in enumerate(columns.timestamp_names):
        cells[name] = None if columns.timestamp[row, i] == ALWAYS_US else int(columns.timestamp[row, i])
    for i, name in enumerate(columns.boolean_names):
        cells[name] = [False, True, None][columns.boolean[row, i]]
    for i, name in enumerate(columns.coded_names):
        code = int(columns.coded[row, i])
        text = view.strings(table.name, name, columns.coded[row, i : i + 1])[0]
        cells[name] = found.unseen[-1 - code] if code < 0 else text
    for name in columns.embedding_names:
        cells[name] = None if np.isnan(columns.embedding[row]).any() else columns.embedding[row].tolist()
    return cells


def _plain(kind: ColumnKind, value: Any) -> Any:
    return "\x1f".join(value) if kind is ColumnKind.MULTICATEGORICAL and value is not None else value


def _tuple(key: Any) -> tuple[int | str, ...]:
    return key if isinstance(key, tuple) else (key,)


def _key_text(key: Any) -> str:
    from temporal_graph.reference_values import key_text

    return key_text(key)


def stored(schema: Schema) -> st.SearchStrategy[Schema]:
    """The schema with all its columns in memory, and on disk."""
    tables = tuple(replace(table, storage="disk" if table.columns else "memory") for table in schema.tables)
    return st.sampled_from([schema, replace(schema, tables=tables)])


def world(shop: Schema, encode: Callable[..., bytes], found: Sequence[ReferenceEvent]) -> World:
    """Both graphs after the events, the native one in two batches."""
    graph, twin = TemporalGraph.create(shop, arena_bytes=1 << 26), ReferenceGraph(shop)
    twin.apply(found)
    half = len(found) // 2
    for batch in (found[:half], found[half:]):
        graph.apply([encode_reference(encode, event) for event in batch])
    return World(shop, graph, twin)


def encode_reference(encode: Callable[..., bytes], event: ReferenceEvent) -> bytes:
    """A twin's event as a RowEvent."""
    times = () if event.table == "users" else (event.event_time_us, event.known_time_us)
    return encode(event.table, event.key, *times, operation=event.operation, **event.cells)


@SETTINGS
@given(data=st.data())
def test_entities_as_of_a_time_are_seen_alike(shop: Schema, encode: Callable[..., bytes], data: st.DataObject) -> None:
    """Around any key at any cut-off both see the same rows in the same order, the same edges, states and cells."""
    both = world(data.draw(stored(shop)), encode, without_ties(data.draw(st.lists(events(), max_size=40))))
    plan, reference = data.draw(plan_of(shop))
    table = data.draw(st.sampled_from(sorted(KEYS)))
    keys = data.draw(st.lists(KEYS[table], min_size=1, max_size=4))
    cutoffs = data.draw(st.lists(TIMES, min_size=len(keys), max_size=len(keys)))
    sampler = Sampler(both.graph.view(), plan)
    named: list[Any] = [key if len(key) > 1 else key[0] for key in keys]
    found = sampler.sample_keys(table, named, np.array(cutoffs, np.int64))
    expected = sample_most_recent(both.twin, [(table, key) for key in keys], reference, cutoffs)
    both.check(found, expected, cutoffs, seeds_too=True)


@SETTINGS
@given(data=st.data())
def test_rows_are_seen_alike_in_their_first_version(
    shop: Schema, encode: Callable[..., bytes], data: st.DataObject
) -> None:
    """A seed given by row shows how it arrived, its links followed from then, its outcome left out."""
    history = without_ties(data.draw(st.lists(events(), min_size=1, max_size=40)))
    both = world(data.draw(stored(shop)), encode, history)
    plan, reference = data.draw(plan_of(shop))
    table = data.draw(st.sampled_from([event.table for event in history]))
    view = both.graph.view()
    rows = data.draw(st.lists(st.integers(0, view.row_count(table) - 1), min_size=1, max_size=4))
    keys = [_tuple(key) for key in view.keys(table, np.array(rows, np.int64))]
    cutoffs = data.draw(st.lists(TIMES, min_size=len(rows), max_size=len(rows)))
    found = Sampler(view, plan).sample_rows(table, np.array(rows, np.int64), np.array(cutoffs, np.int64))
    firsts = [both.twin.first_version(table, key) for key in keys]
    seeds = [(table, key) for key in keys]
    expected = sample_most_recent(both.twin, seeds, reference, cutoffs, seed_cells=firsts)
    both.check(found, expected, cutoffs, seeds_too=False)
    for b, first in enumerate(firsts):
        _check_seed(found, both.graph, int(found.seed_offset[b]), table, first)


@SETTINGS
@given(data=st.data())
def test_events_that_are_not_in_the_graph_are_seen_alike(
    shop: Schema, encode: Callable[..., bytes], data: st.DataObject
) -> None:
    """A payment being scored sees what it would see had it arrived, whether its key is already there or not."""
    both = world(data.draw(stored(shop)), encode, without_ties(data.draw(st.lists(events(), max_size=40))))
    plan, reference = data.draw(plan_of(shop))
    seeds = data.draw(st.lists(events().filter(lambda event: event.operation == "insert"), min_size=1, max_size=4))
    cutoffs = data.draw(st.lists(TIMES, min_size=len(seeds), max_size=len(seeds)))
    found = Sampler(both.graph.view(), plan).sample_events(
        [encode_reference(encode, seed) for seed in seeds], np.array(cutoffs, np.int64)
    )
    cells: list[Mapping[str, Any]] = [
        {name: value for name, value in seed.cells.items() if value is not None} for seed in seeds
    ]
    unknown_parents_dropped = [
        _with_known_parents(both, seed.table, one) for seed, one in zip(seeds, cells, strict=True)
    ]
    named = [(seed.table, seed.key) for seed in seeds]
    expected = sample_most_recent(both.twin, named, reference, cutoffs, seed_cells=unknown_parents_dropped)
    both.check(found, expected, cutoffs, seeds_too=False)
    for b, seed in enumerate(seeds):
        n = int(found.seed_offset[b])
        assert (found.row[n], found.version[n]) == (-1, 0)
        assert found.event_time_us[n] == (ALWAYS_US if seed.table == "users" else seed.event_time_us)
        assert found.known_time_us[n] == (ALWAYS_US if seed.table == "users" else seed.known_time_us)
        _check_seed(found, both.graph, n, seed.table, cells[b])


@SETTINGS
@given(data=st.data())
def test_sessions_are_seen_alike(shop: Schema, encode: Callable[..., bytes], data: st.DataObject) -> None:
    """What a request brings stands as the newest children of its seed, save what the graph already shows there."""
    plan, reference = data.draw(plan_of(shop))
    link = data.draw(st.sampled_from(shop.links))
    seeds = data.draw(st.lists(KEYS[link.parent], min_size=1, max_size=3))
    cutoffs = data.draw(st.lists(TIMES, min_size=len(seeds), max_size=len(seeds)))
    sessions = [
        data.draw(st.lists(of_session(link, key, cutoff), max_size=5))
        for key, cutoff in zip(seeds, cutoffs, strict=True)
    ]
    # Rows of the same keys, and others of the seeds: some of a session are there already, others' children are fewer.
    history = data.draw(st.lists(events(), max_size=20))
    for key, cutoff, session in zip(seeds, cutoffs, sessions, strict=True):
        history += data.draw(st.lists(of_session(link, key, cutoff), max_size=5))
        history += [
            replace(event, cells={**event.cells, link.name: key}) for event in session if data.draw(st.booleans())
        ]
    both = world(data.draw(stored(shop)), encode, without_ties(history))
    named: list[Any] = [key if len(key) > 1 else key[0] for key in seeds]
    view = both.graph.view()
    rows = view.row_index(link.parent, named)
    for row, key, session in zip(rows.tolist(), seeds, sessions, strict=True):
        # A row without a key to go by cannot be told from its own child.
        session[:] = [event for event in session if row >= 0 or (event.table, event.key) != (link.parent, key)]
    encoded = [[encode_reference(encode, event) for event in session] for session in sessions]
    found = Sampler(view, plan).sample_sessions(
        link.parent, rows, encoded, np.array(cutoffs, np.int64), link=link.backward
    )
    expected = sample_most_recent(
        both.twin,
        [(link.parent, key) for key in seeds],
        reference,
        cutoffs,
        sessions=sessions,
        session_link=link.backward,
    )
    both.check(found, expected, cutoffs, seeds_too=True)


@st.composite
def of_session(draw: st.DrawFn, link: Link, seed: Any, cutoff_time_us: int) -> ReferenceEvent:
    """An event that may stand in the session of a seed: visible at the cut-off, of the seed or of nobody."""
    cells = {name: draw(values) for name, values in CELLS[link.child].items() if draw(st.integers(0, 3)) > 0}
    cells.pop(link.name, None)
    if draw(st.booleans()):
        cells[link.name] = seed
    event_time_us, known_time_us = (min(draw(TIMES), cutoff_time_us) for _ in range(2))
    if link.child != "pays":
        known_time_us = event_time_us
    operation: Operation = draw(st.sampled_from(OPERATIONS[:3]))
    return ReferenceEvent(link.child, operation, draw(KEYS[link.child]), event_time_us, known_time_us, cells)


def _with_known_parents(both: World, table: str, cells: Mapping[str, Any]) -> dict[str, Any]:
    """Without the foreign keys of parents that the graph has never heard of: there is no row to show."""
    rows = both.twin.dump()
    parents = {link.name: link.parent for link in both.schema.table(table).links}
    return {k: v for k, v in cells.items() if k not in parents or _key_text(v) in rows[parents[k]]}


def _check_seed(found: Neighborhood, graph: TemporalGraph, n: int, table: str, cells: Mapping[str, Any]) -> None:
    """The seed's cells are these, without the outcome, whether the graph knows their strings or not."""
    shown = cells_of(found, graph, n)
    for column in graph.schema.table(table).columns:
        value = cells.get(column.name)
        if column.kind is ColumnKind.MULTICATEGORICAL and value is not None:
            value = sorted({element for element in value if element})
        assert shown[column.name] == (None if column.outcome else _plain(column.kind, value))
