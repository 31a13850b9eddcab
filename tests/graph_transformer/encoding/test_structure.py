from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graph_transformer.encoding.layout import AGE_STEPS
from graph_transformer.encoding.structure import Edges, EdgeTypes, counts, degrees, edges_of, ranks

TYPES = EdgeTypes(np.array([0, 0, -1, -1]), np.array([True, False, True, False]), 1)


class Sampled:
    """The edge columns of a neighborhood of six rows."""

    hop = np.zeros(6, dtype=np.uint8)

    def __init__(self, *edges: tuple[int, int, int]) -> None:
        columns = np.array(edges, dtype=np.int32).reshape(-1, 3)
        self.edge_source, self.edge_target = columns[:, 0], columns[:, 1]
        self.edge_link = columns[:, 2].astype(np.int16)


def test_an_edge_counts_once_whichever_way_it_was_followed() -> None:
    """Row 1 points to row 0: found from the parent and again from the child it is one edge, by rising child."""
    found = edges_of(Sampled((0, 3, 1), (0, 1, 1), (1, 0, 0), (4, 5, 2)), TYPES)  # type: ignore[arg-type]
    assert (found.link.tolist(), found.child.tolist(), found.parent.tolist()) == ([0, 0], [1, 3], [0, 0])
    assert found.bounds == [0, 2]


def test_no_edges_are_no_links() -> None:
    """A seed alone has none, and an edge type the model never met is left out."""
    for sampled in (Sampled(), Sampled((0, 1, 2))):
        found = edges_of(sampled, TYPES)  # type: ignore[arg-type]
        assert found.bounds == [0, 0]
        assert len(found.child) == 0
        assert [len(part) for part in degrees(found)] == [0, 0, 0]


def test_degrees_are_those_of_each_link() -> None:
    """Two children over one link and one over another are two entries; rows without children have none."""
    edges = Edges(np.array([0, 0, 1, 1]), np.array([1, 2, 3, 4]), np.array([0, 0, 0, 2]), [0, 2, 4])
    node, link, degree = degrees(edges)
    assert list(zip(node.tolist(), link.tolist(), strict=True)) == [(0, 0), (0, 1), (2, 1)]
    assert np.allclose(degree, np.log1p([2, 1, 1]))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [0, 1, 4, 2, 3, 5]])
def test_rank_counts_newer_rows_of_the_same_kind(order: list[int]) -> None:
    """Newest is 0, equal times are equal, another parent or link starts anew; the order of rows changes nothing."""
    parent = np.array([-1, 0, 0, 0, 0, 1], dtype=np.int32)
    link = np.array([-1, 1, 1, 1, 1, 1], dtype=np.int16)
    time = np.array([99, 9, 7, 7, 5, 3])
    found = ranks(parent[order], link[order], time[order])
    assert np.allclose(np.expm1(found), np.array([0, 0, 1, 1, 3, 0])[order])


def test_rows_without_time_rank_behind() -> None:
    """The smallest time of all is older than any other, not newer."""
    parent, link = np.array([-1, 0, 0], dtype=np.int32), np.array([-1, 1, 1], dtype=np.int16)
    assert np.allclose(np.expm1(ranks(parent, link, np.array([0, -(2**63), 5]))), [0, 1, 0])


def test_two_seeds_do_not_share_ranks() -> None:
    """A seed that follows a row of another neighborhood, and its rows, begin at zero."""
    parent = np.array([-1, 0, -1, 2], dtype=np.int32)
    link = np.array([-1, 1, -1, 1], dtype=np.int16)
    assert ranks(parent, link, np.array([9, 8, 7, 6])).tolist() == [0, 0, 0, 0]


def test_counts_are_per_seed_slot_and_age() -> None:
    """Rows are counted where they belong; ages beyond the ends count in the first and the last step."""
    sample, slot = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 2, 1, 1])
    ages: Any = np.array([0.05, -3.0, 0.5, 0.99, 7.0], dtype=np.float32)
    found = np.expm1(counts(sample, slot, ages, (0.0, 1.0), (2, 3))).reshape(2, 2, AGE_STEPS)
    assert found[0, 0, 0] == pytest.approx(2)
    assert found[1, 1, AGE_STEPS - 1] == pytest.approx(2)
    assert found.sum() == pytest.approx(4), "the last slot is not counted"
