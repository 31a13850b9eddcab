"""A neighborhood is frozen named columns that fit together, over memory that lives as long as anyone looks."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from online_sampler import Neighborhood, Sampler, SamplingPlan
from temporal_graph.graph import TemporalGraph
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import GraphPosition

PLAN = SamplingPlan.from_dict({"num_neighbors": [{"hop1": 4}, {"hop2": 3}, {"hop3": 2}]})


@pytest.fixture
def sampler(graph: TemporalGraph, encode: Callable[..., bytes]) -> Sampler:
    """Sixty payments of five users at four shops, a microsecond apart from 1,000 on."""
    graph.apply(
        [
            encode(
                "pays",
                (i,),
                1_000 + i,
                user_id=(i % 5,),
                shop_id=(f"shop {i % 4}",),
                amount=float(i),
                card="ab"[i % 2],
                place=[i, -i],
                fraud=i % 3 == 0,
            )
            for i in range(60)
        ]
    )
    return Sampler(graph.view(), PLAN)


def sample(sampler: Sampler, *rows: int) -> Neighborhood:
    """Payments by row, each scored at its own time."""
    at = np.array(rows, np.int64)
    return sampler.sample_rows("pays", at, at + 999)


def test_columns_fit_together(sampler: Sampler) -> None:
    """Dtypes and lengths are as stated; every node but a seed has a parent one hop nearer in the same neighborhood."""
    found = sample(sampler, 59, 30, 0)
    count, edges = len(found.row), len(found.edge_source)
    for name, dtype, length in (
        ("seed_offset", np.int64, 4),
        ("cutoff_time_us", np.int64, 3),
        ("table", np.uint8, count),
        ("row", np.int64, count),
        ("hop", np.uint8, count),
        ("parent", np.int32, count),
        ("link", np.int16, count),
        ("event_time_us", np.int64, count),
        ("known_time_us", np.int64, count),
        ("version", np.int32, count),
        ("edge_offset", np.int64, 4),
        ("edge_source", np.int32, edges),
        ("edge_target", np.int32, edges),
        ("edge_link", np.int16, edges),
    ):
        column = getattr(found, name)
        assert (column.dtype, len(column)) == (dtype, length), name
    assert found.seed_offset[[0, -1]].tolist() == [0, count]
    assert found.edge_offset[[0, -1]].tolist() == [0, edges]
    for b in range(3):
        low, high = found.seed_offset[b : b + 2]
        assert (found.hop[low], found.parent[low], found.link[low]) == (0, -1, -1)
        parents = found.parent[low + 1 : high]
        assert (parents >= low).all()
        assert (parents < np.arange(low + 1, high)).all()
        assert (found.hop[parents] + 1 == found.hop[low + 1 : high]).all()
        assert (np.diff(found.hop[low:high].astype(int)) >= 0).all()
        rows = set(zip(found.table[low:high].tolist(), found.row[low:high].tolist(), strict=True))
        assert len(rows) == high - low
        inside = slice(*found.edge_offset[b : b + 2])
        for end in (found.edge_source[inside], found.edge_target[inside]):
            assert ((end >= low) & (end < high)).all()


def test_every_node_but_seeds_was_reached_by_an_edge(sampler: Sampler) -> None:
    """(parent, node, link) of each node is among the edges, and edges follow their link's tables."""
    found = sample(sampler, 59, 42)
    edges = set(zip(found.edge_source.tolist(), found.edge_target.tolist(), found.edge_link.tolist(), strict=True))
    for n in np.flatnonzero(found.parent >= 0).tolist():
        assert (int(found.parent[n]), n, int(found.link[n])) in edges
    tables = [table.name for table in found.schema.tables]
    for source, target, link in edges:
        names = found.schema.edge_types[link].split("->")
        assert [name.split(".")[0] for name in names] == [tables[found.table[source]], tables[found.table[target]]]


def test_cells_are_those_of_their_nodes(sampler: Sampler) -> None:
    """Each table's cells name their nodes once, in order; a payment's cells are what its event said."""
    found = sample(sampler, 59, 58)
    assert sorted(np.concatenate([columns.node for columns in found.columns.values()])) == list(range(len(found.row)))
    pays = found.columns["pays"]
    assert (found.table[pays.node] == found.schema.table_index("pays")).all()
    assert (np.diff(pays.node) > 0).all()
    assert pays.numerical_names == ("amount",)
    assert pays.coded_names == ("card", "tags", "note")
    assert (pays.boolean_names, pays.timestamp_names) == (("online", "fraud"), ("due",))
    assert pays.embedding_names == ("place",)
    row = found.row[pays.node]
    assert pays.numerical[:, 0].tolist() == row.tolist()
    assert pays.embedding.tolist() == [[i, -i] for i in row.tolist()]
    assert sampler.view.strings("pays", "card", pays.coded[:, 0]) == ["ab"[i % 2] for i in row.tolist()]
    assert (pays.coded[:, 1:] == 0).all()
    assert (pays.boolean[:, 0] == 2).all()
    assert (pays.timestamp == ALWAYS_US).all()
    seed = found.hop[pays.node] == 0
    assert (pays.boolean[seed, 1] == 2).all()
    assert (pays.boolean[~seed, 1] == (row[~seed] % 3 == 0)).all()


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_torch_wraps_cells_without_a_copy(sampler: Sampler) -> None:
    """Cells lie together and in types that torch has: a tensor of them is the very memory that the sampler wrote."""
    import torch

    pays = sample(sampler, 59, 58).columns["pays"]
    for cells in (pays.numerical, pays.coded, pays.boolean, pays.timestamp, pays.embedding):
        tensor = torch.from_numpy(cells)
        assert (tensor.is_contiguous(), tensor.data_ptr()) == (True, cells.ctypes.data)


def test_a_table_without_columns_has_its_nodes(
    graph: TemporalGraph, encode: Callable[..., bytes], sampler: Sampler
) -> None:
    """They are those of the table, seeds among them, however often they are asked for, with no cells beside them."""
    graph.apply([encode("notes", ("north", i), 2_000, pay_id=(59 - i,)) for i in range(3)])
    for table, rows in (("pays", [59, 57, 3]), ("notes", [0, 2])):
        at = np.array(rows, np.int64)
        found = sampler.sample_rows(table, at, np.full(len(at), 2_000))
        notes = np.flatnonzero(found.table == [one.name for one in found.schema.tables].index("notes"))
        assert len(notes) > 0
        for columns in (found.columns["notes"], found.standing_at(found.position).columns["notes"]):
            np.testing.assert_array_equal(columns.node, notes)
            assert columns.numerical.shape == (len(notes), 0)


def test_tables_that_were_not_reached_have_no_rows(sampler: Sampler) -> None:
    """Every table of the schema has its columns, empty ones keep their width."""
    notes, shops = (sample(sampler, 1).columns[name] for name in ("notes", "shops"))
    assert len(notes) == 0
    assert notes.numerical.shape == (0, 0)
    assert shops.numerical.shape == (len(shops), 1)
    assert len(sampler.sample_rows("pays", np.zeros(0, np.int64), np.zeros(0, np.int64))) == 0


def test_it_is_frozen(sampler: Sampler) -> None:
    """Neither a neighborhood nor its cells let an attribute be set or removed."""
    found = sample(sampler, 3)
    for frozen, name in ((found, "row"), (found.columns["pays"], "numerical")):
        with pytest.raises(AttributeError, match="frozen"):
            setattr(frozen, name, None)
        with pytest.raises(AttributeError, match="frozen"):
            delattr(frozen, name)
    with pytest.raises(TypeError):
        found.columns["pays"] = found.columns["users"]  # type: ignore[index]


def test_arrays_outlive_the_neighborhood(sampler: Sampler) -> None:
    """Memory is used again only when nobody looks: an array kept from one request is untouched by the next ones."""
    kept, expected = sample(sampler, 59).row, sample(sampler, 59).row.copy()
    gc.collect()
    for i in range(60):
        sample(sampler, i)
    assert kept.tolist() == expected.tolist()


def test_it_says_where_the_graph_stood(graph: TemporalGraph, encode: Callable[..., bytes], sampler: Sampler) -> None:
    """The position is that of the moment of sampling: a later batch does not change it, the next sample shows it."""
    before = sample(sampler, 5)
    graph.apply([encode("users", (77,))], positions={("pays", 1): 61})
    after = sample(sampler, 5)
    assert (before.position.sequence, before.position.offsets) == (60, {})
    assert (after.position.sequence, after.position.offsets) == (61, {("pays", 1): 61})
    assert after.position == graph.view().position()


def test_a_sample_of_a_part_stands_where_the_whole_does(sampler: Sampler) -> None:
    """It is the same rows, at the position that is told; the one before stays where it was."""
    found = sample(sampler, 59)
    told = found.standing_at(GraphPosition(7, 0, {("events", 0): 3}))
    assert told.position == GraphPosition(7, 0, {("events", 0): 3})
    assert found.position.sequence == 60
    np.testing.assert_array_equal(told.row, found.row)
